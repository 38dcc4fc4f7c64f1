"""What the kernel tells of processes, read from /proc: whole command lines, whatever the width of a terminal."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def stat_of(pid: int) -> list[str]:
    """What the kernel tells of a process, from its state on: state, parent and so forth; OSError when it is gone."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()


def command_of(pid: int) -> list[str]:
    """A process's arguments; none once it has ended; OSError when it is gone."""
    return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")[:-1]


def children_of(parent: int) -> dict[int, list[str]]:
    """The command of every child of a process, by process id."""
    found = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with suppress(OSError):
                if int(stat_of(int(path.name))[1]) == parent:
                    found[int(path.name)] = command_of(int(path.name))
    return found
