"""Runs one measurement in a process of its own: a plan goes in as JSON, a result comes out as JSON."""

import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

ROOT: Final = Path(__file__).resolve().parents[2]
LIMIT_S: Final = 420


def run_child(module: str, plan: msgspec.Struct) -> dict[str, Any]:
    """The JSON object in the last line that the module prints; its progress goes to our stderr.

    Raises:
        RuntimeError: it failed or took longer than seven minutes.
    """
    command = [sys.executable, "-m", "tests.compiled.run", module, msgspec.json.encode(plan).decode()]
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=LIMIT_S, check=True)
        result: dict[str, Any] = msgspec.json.decode(done.stdout.strip().splitlines()[-1])
    except (subprocess.SubprocessError, IndexError, msgspec.DecodeError) as error:
        raise RuntimeError(f"{module} gave no result: {error}") from error
    return result
