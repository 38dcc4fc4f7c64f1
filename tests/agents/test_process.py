"""A process that serves ends when it is told to, whatever it waits for."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from time import monotonic

from agents.process import STOP_S_MAX

ROOT = Path(__file__).parents[2]
START_S_MAX = 40
SPARE_S = 5


def test_a_worker_that_waits_for_its_broker_ends_when_told(tmp_path: Path) -> None:
    """Told to stop while a broker takes its connection and never answers, it ends within its grace, in good order."""
    with socket.create_server(("127.0.0.1", 0)) as broker:
        broker.settimeout(START_S_MAX)
        own = {"BROKER": f"kafka://127.0.0.1:{broker.getsockname()[1]}", "DATA": str(tmp_path / "data"), "HTTP": ""}
        rest = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        with subprocess.Popen(
            [sys.executable, "app.py", "worker"],
            cwd=ROOT,
            env={**rest, **{f"HEADRACE_{name}": value for name, value in own.items()}},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as worker:
            try:
                connection, _ = broker.accept()
                began = monotonic()
                worker.send_signal(signal.SIGTERM)
                code = worker.wait(STOP_S_MAX + SPARE_S)
                took_s = monotonic() - began
            finally:
                worker.kill()
                connection.close()

    assert (code, took_s < STOP_S_MAX) == (0, True)
