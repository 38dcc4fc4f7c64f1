"""docs/THREAT_MODEL.md is held to the tests that it names."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs/THREAT_MODEL.md").read_text("utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def _tests_of(path: str) -> set[str]:
    """The test functions of a file; none if there is no such file."""
    file = ROOT / path
    if not file.is_file():
        return set()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, functions)}


def _defences(text: str) -> list[str]:
    """The rows of the table of defences."""
    part = text.partition("## Defences")[2].partition("\n## ")[0]
    return [line for line in part.splitlines() if line.startswith("| ")][2:]


def _unproven(text: str) -> list[str]:
    """Rows that name no test, and tests that are named and are none."""
    rows = [row for row in _defences(text) if not NAMED.search(row.rpartition(" | ")[2])]
    return rows + [f"{path}::{name}" for path, name in NAMED.findall(text) if name not in _tests_of(path)]


def test_every_defence_names_tests_that_exist() -> None:
    """No defence is only claimed: each row names a test of this repository, and a name that is none would be seen."""
    assert len(_defences(TEXT)) > 30
    assert _unproven(TEXT) == []
    name = NAMED.findall(TEXT)[0][1]
    assert _unproven(TEXT.replace(name, name + "x")) == [f"{NAMED.findall(TEXT)[0][0]}::{name}x"]
    assert len(_unproven(re.sub(NAMED, "words", TEXT, count=1))) == 1
