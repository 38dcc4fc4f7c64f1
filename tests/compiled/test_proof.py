"""The proof that stands before every build tells a build that decides otherwise from one that does not."""

from pathlib import Path

import pytest

from config.compiled import ROOT, digest
from tests.compiled.__main__ import prove


def _build(builds: Path, source: str) -> None:
    """A build of one module, as Python: the proof does not care what it is made of."""
    file = builds / digest() / "streams" / "times.py"
    file.parent.mkdir(parents=True)
    file.write_text(source, "utf-8")


def test_a_build_that_decides_as_the_sources_passes(tmp_path: Path) -> None:
    """Both runs of the proof give the same digest, though they are different processes with different hash seeds."""
    _build(tmp_path, (ROOT / "streams/times.py").read_text("utf-8"))

    prove(tmp_path)


def test_a_build_that_decides_otherwise_is_refused(tmp_path: Path) -> None:
    """A build whose hours are one millisecond too long never comes into use."""
    source = (ROOT / "streams/times.py").read_text("utf-8")
    _build(tmp_path, source + "\nHOUR_MS = HOUR_MS + 1\nDAY_MS = DAY_MS - 1\n")

    with pytest.raises(SystemExit, match="decide otherwise"):
        prove(tmp_path)
