"""Modules compiled ahead of time (`make fast`): used where they were built from exactly these sources.

A build lies in the environment, in a folder named by a digest of every source file, so that a changed source
never runs old code: its digest names no folder. Without a build, or beside a stale one, Python runs the sources.
"""

import sys
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final, Literal

State = Literal["compiled", "interpreted", "stale"]

ROOT: Final = Path(__file__).resolve().parent.parent
BUILDS: Final = Path(sys.prefix) / "headrace-compiled"
SOURCES: Final = ("agents", "channels", "config", "streams", "tables")
MODULES: Final = (
    "channels.avro_rows",
    "streams.campaigns.enter",
    "streams.codec",
    "streams.currents",
    "streams.depth",
    "streams.exports",
    "streams.fold",
    "streams.ids",
    "streams.ingest.raw_record",
    "streams.intake",
    "streams.outputs",
    "streams.profiles.apply",
    "streams.segments.condition",
    "streams.segments.counting",
    "streams.segments.membership",
    "streams.segments.predicate",
    "streams.tally",
    "streams.times",
    "streams.track",
    "streams.users",
    "tables.due",
    "tables.log",
    "tables.partition",
    "tables.recent",
    "tables.store",
)
"""What is worth compiling: what runs for every event, and never waits. Nothing in it is patched at run time."""

RECORDS: Final = "_records"
"""Follows a module's name in that of its record types, which the compiler cannot take and Python keeps running."""


def digest(root: Path = ROOT) -> str:
    """What the sources below a folder are, and which Python they are compiled for."""
    found = blake2b(f"{sys.implementation.cache_tag} {MODULES}".encode(), digest_size=16)
    for folder in SOURCES:
        for path in sorted((root / folder).rglob("*.py")):
            data = path.read_bytes()
            found.update(f"{path.relative_to(root)}\0{len(data)}\0".encode() + data)
    return found.hexdigest()


def use_compiled(builds: Path = BUILDS, root: Path = ROOT) -> State:
    """Let later imports find compiled modules, if they are of these sources; call it before anything else.

    Returns:
        `compiled`, or why not: `stale` where builds of other sources are all there is, else `interpreted`,
        which is also the answer where a module that would be compiled is already loaded.
    """
    if not builds.is_dir() or any(name in sys.modules for name in MODULES):
        return "interpreted"
    build = builds / digest(root)
    if not build.is_dir():
        return "stale" if any(builds.iterdir()) else "interpreted"
    sys.meta_path.insert(0, _Finder(_files(build)))
    return "compiled"


def is_compiled() -> bool:
    """Whether this process runs compiled modules."""
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)


def _files(build: Path) -> dict[str, Path]:
    """The files of a build by the names of their modules."""
    suffixes = (*EXTENSION_SUFFIXES, ".py")
    found: dict[str, Path] = {}
    for path in build.rglob("*"):
        suffix = next((suffix for suffix in suffixes if path.name.endswith(suffix)), None)
        if suffix is not None:
            name = ".".join(path.relative_to(build).parts)
            found[name.removesuffix(suffix)] = path
    return found


class _Finder(MetaPathFinder):
    """Finds the modules of a build before Python finds their sources."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The compiled module of that name, if there is one."""
        file = self._files.get(fullname)
        return None if file is None else spec_from_file_location(fullname, file)
