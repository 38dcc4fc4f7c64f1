"""The SDK's built file: made of exactly these sources, small, and held to node's own tests of it."""

import gzip
import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SDK = ROOT / "sdk"
BUILT = SDK / "dist/headrace.js"
GZIP_BYTES_MAX = 15_000
NODE = shutil.which("node")
ESBUILD = SDK / "node_modules/.bin/esbuild"
TSC = SDK / "node_modules/.bin/tsc"

needs_node = pytest.mark.skipif(NODE is None, reason="no node here")
needs_tools = pytest.mark.skipif(NODE is None or not ESBUILD.exists(), reason="no esbuild here: make sdk installs it")


def test_the_file_is_small() -> None:
    """What a page loads is below 15 kB as it travels, and depends on nothing at run time."""
    assert len(gzip.compress(BUILT.read_bytes(), 9)) < GZIP_BYTES_MAX
    assert "dependencies" not in json.loads((SDK / "package.json").read_text("utf-8"))


@needs_tools
@pytest.mark.timeout(120)
def test_the_file_is_built_of_these_sources(tmp_path: Path) -> None:
    """Types hold, and building anew gives the committed file to the byte."""
    subprocess.run([TSC, "--noEmit"], cwd=SDK, check=True)
    command = json.loads((SDK / "package.json").read_text("utf-8"))["scripts"]["build"].split()
    built = tmp_path / "headrace.js"
    command = [ESBUILD, *(f"--outfile={built}" if each.startswith("--outfile=") else each for each in command[1:])]
    subprocess.run(command, cwd=SDK, check=True, capture_output=True)
    assert built.read_bytes() == BUILT.read_bytes()


@needs_node
@pytest.mark.timeout(120)
def test_node_s_own_tests_hold() -> None:
    """The tests of sdk/test pass on the built file: its protocol's vectors among them."""
    done = subprocess.run(
        [str(NODE), "--test", "test/sdk.test.mjs"], cwd=SDK, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
