"""Compiled modules are used for exactly the sources that they were built from, and for no others."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from config.compiled import MODULES, RECORDS, ROOT, SOURCES, digest
from tests.compiled.__main__ import split

_ASK = """
import sys
from pathlib import Path
from config.compiled import is_compiled, use_compiled
state = use_compiled(Path(sys.argv[1]), Path(sys.argv[2]))
from streams import ids
print(state, is_compiled(), getattr(ids, "BUILT", "source"))
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the sources."""
    for folder in SOURCES:
        shutil.copytree(ROOT / folder, tmp_path / "root" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "root"


@pytest.fixture
def builds(tmp_path: Path, root: Path) -> Path:
    """Builds of those sources, where a module that only says so stands for a compiled one."""
    file = tmp_path / "builds" / digest(root) / "streams" / "ids.py"
    file.parent.mkdir(parents=True)
    file.write_text("BUILT = 'built'\n", "utf-8")
    return tmp_path / "builds"


def _ask(builds: Path, root: Path) -> str:
    command = [sys.executable, "-c", _ASK, str(builds), str(root)]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def test_a_build_of_these_sources_is_used(builds: Path, root: Path) -> None:
    """A module comes from the build whose name is the digest of the sources."""
    assert _ask(builds, root) == "compiled True built"


@pytest.mark.parametrize("change", ["append", "new", "remove"])
def test_a_changed_source_never_runs_old_code(builds: Path, root: Path, change: str) -> None:
    """Whatever changes in whichever file, Python runs the sources, and says that the build is stale."""
    if change == "append":
        with (root / "agents/users.py").open("a", encoding="utf-8") as file:
            file.write("\n")
    elif change == "new":
        (root / "streams/new.py").write_text("", "utf-8")
    else:
        (root / "tables/replayed.py").unlink()

    assert _ask(builds, root) == "stale False source"


def test_without_a_build_python_runs_the_sources(tmp_path: Path, root: Path) -> None:
    """Nothing was built: that is no reason to say anything."""
    assert _ask(tmp_path / "none", root) == "interpreted False source"


def test_structs_stay_with_python() -> None:
    """The compiler would drop a struct's `frozen` and `tag`, so it never sees one; all else it gets."""
    source = "import msgspec\nLIMIT = 1\nclass A(msgspec.Struct, frozen=True):\n    a: int\nclass B:\n    pass\n"

    rest, names = split(source, "streams.x")

    assert names == ["A"]
    imported = f"import msgspec\nfrom streams.x{RECORDS} import A as A\n"
    assert rest == imported + "LIMIT = 1\nclass B:\n    pass\n"


def test_the_command_line_decides_before_it_loads_what_may_be_compiled() -> None:
    """`app.py` imports no such module at its top: a build could not be used any more."""
    ask = f"import sys, app; print([name for name in {MODULES} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
