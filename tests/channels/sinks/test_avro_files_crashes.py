"""Every record gets into exactly one export file, whatever crashes, refuses or competes."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from channels.sinks.avro_files import AvroFiles, Written
from streams.errors import OutsideFailing
from tests.channels.sinks.files import ids_in, left_over, views, write

STEPS = ("fsync", "link", "unlink")
CALLS = 6  # the file, the link, three folders, the temporary name


class Crash(BaseException):
    """The process is gone: nobody handles this."""


@pytest.fixture
def break_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, BaseException], None]]:
    """Arms an error: at step 2n it is raised before the n-th touch of the disk, at 2n + 1 after it."""
    real = {name: getattr(os, name) for name in STEPS}
    state: dict[str, Any] = {"left": -1, "error": None}

    def broken(name: str) -> Callable[..., Any]:
        def call(*args: object, **kwargs: object) -> object:
            left = state["left"]
            state["left"] = left - 2 if left >= 0 else left
            if left == 0:
                raise state["error"]
            result = real[name](*args, **kwargs)
            if left == 1:
                raise state["error"]
            return result

        return call

    def arm(step: int, error: BaseException) -> None:
        state.update(left=step, error=error)

    for name in STEPS:
        monkeypatch.setattr(os, name, broken(name))
    yield arm
    monkeypatch.undo()


@pytest.mark.parametrize("step", range(2 * CALLS + 1))
def test_crash_at_each_step(tmp_path: Path, break_at: Callable[[int, BaseException], None], step: int) -> None:
    """After a crash before or after any touch of the disk, a repeat puts every id into exactly one file."""
    sink = AvroFiles(tmp_path, "headrace")
    break_at(step, Crash())
    crashed = False
    try:
        write(sink, views(3))
    except Crash:
        crashed = True
    break_at(-1, Crash())
    assert crashed == (step < 2 * CALLS)
    again = AvroFiles(tmp_path, "headrace")
    assert left_over(tmp_path) == []
    found = list(again.files())
    written = write(again, views(5))
    assert written.existed == bool(found)
    assert written.last_offset == (2 if found else 4)
    if written.last_offset < 4:
        write(again, views(5)[written.last_offset + 1 :])
    assert left_over(tmp_path) == []
    assert ids_in(tmp_path) == Counter(record.fields["id"] for _, record in views(5))


@pytest.mark.parametrize("step", range(2 * CALLS))
def test_disk_error_at_each_step(tmp_path: Path, break_at: Callable[[int, BaseException], None], step: int) -> None:
    """A refusing disk is reported with the path of the file, and a repeat on the same sink completes it."""
    sink = AvroFiles(tmp_path, "headrace")
    break_at(step, OSError(28, "No space left on device"))
    with pytest.raises(OutsideFailing, match=r"dataexport\.headrace\+0\+0.*No space left"):
        write(sink, views(3))
    assert left_over(tmp_path) == []
    assert write(sink, views(3)).last_offset == 2
    assert left_over(tmp_path) == []
    assert ids_in(tmp_path) == Counter(record.fields["id"] for _, record in views(3))


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_process(tmp_path: Path, moment: str) -> None:
    """A process killed around the link leaves nothing that its successor does not clear or take over."""
    script = f"""
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from channels.sinks.avro_files import AvroFiles
from tests.channels.sinks.files import values_of, views
real = os.link
def link(*args, **kwargs):
    if {moment!r} == "after":
        real(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
os.link = link
asyncio.run(AvroFiles(Path({str(tmp_path)!r}), "headrace").write("users.behaviors.CustomEvent", values_of(views(3)), 0))
"""
    killed = subprocess.run([sys.executable, "-c", script], check=False, timeout=50)
    assert killed.returncode == -signal.SIGKILL
    assert len(left_over(tmp_path)) == 1
    sink = AvroFiles(tmp_path, "headrace")
    assert left_over(tmp_path) == []
    assert write(sink, views(3)).existed == (moment == "after")
    assert ids_in(tmp_path) == Counter(record.fields["id"] for _, record in views(3))


def test_existing_file_is_taken_over(tmp_path: Path) -> None:
    """A file that is there already stays as it is, and the result tells what it holds."""
    sink = AvroFiles(tmp_path, "headrace")
    first = write(sink, views(3))
    before = first.path.read_bytes()
    assert write(sink, views(5)) == Written(first.path, 3, 2, existed=True)
    assert write(sink, views(1)) == Written(first.path, 3, 2, existed=True)
    assert first.path.read_bytes() == before


def test_other_writer_is_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another worker links in the last moment is taken over, never replaced."""
    real = os.link
    faster = write(AvroFiles(tmp_path / "other", "headrace"), views(2)).path

    def link(source: Path, target: Path) -> None:
        real(faster, target)
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    written = write(AvroFiles(tmp_path / "ours", "headrace"), views(3))
    assert written == Written(written.path, 2, 1, existed=True)
    assert written.path.read_bytes() == faster.read_bytes()
    assert left_over(tmp_path / "ours") == []


def test_taken_over_file_is_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that a crashed process linked has its folders synced before its last offset is told."""
    path = write(AvroFiles(tmp_path, "headrace"), views(2)).path
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    write(AvroFiles(tmp_path, "headrace"), views(2))
    assert synced == [folder.stat().st_ino for folder in (path.parent, path.parent.parent, tmp_path)]


def test_living_writer_keeps_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that starts while another writes to the same folder does not clear the other's file away."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        AvroFiles(tmp_path, "headrace")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert write(AvroFiles(tmp_path, "headrace"), views(3)).rows == 3
