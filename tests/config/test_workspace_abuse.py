"""Workspace files that mean harm: code, bombs, and files beyond the limits."""

from pathlib import Path

import pytest

from config import workspace
from config.workspace import WorkspaceError, read_workspace

PARTS = ["&a0 {event: {name: e}}", *(f"&a{n} {{all: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 9))]
LAUGHS = f"name: x\nfilter: {{any: [{', '.join(PARTS)}]}}"


def written(folder: Path, text: str) -> Path:
    """A workspace of one file."""
    (folder / "segments").mkdir()
    (folder / "segments/x.yaml").write_text(text)
    return folder


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['true']",
        "name: !!python/name:os.system",
        "[" * 100_000,
        "name: " + "9" * 5_000,
        *("name: !!int x", "name: !!bool maybe", "name: !!timestamp x", "name: !!timestamp 2024-99-99"),
        "x" * (workspace.FILE_BYTES_MAX + 1),
    ],
)
def test_a_file_is_data_and_has_a_size(tmp_path: Path, text: str) -> None:
    """No tag makes an object of Python's, and what is too deep, too large or not of its tag is refused by name."""
    with pytest.raises(WorkspaceError, match="segments/x"):
        read_workspace(written(tmp_path, text))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", [LAUGHS, "name: x\nfilter: &a {any: [*a]}"])
def test_references_to_references_do_not_multiply(tmp_path: Path, text: str) -> None:
    """A file of a kilobyte that stands for a billion items is refused before anybody walks through them."""
    with pytest.raises(WorkspaceError, match="more than 100000 items"):
        read_workspace(written(tmp_path, text))


def test_a_file_may_refer_to_itself_within_reason(tmp_path: Path) -> None:
    """Anchors and aliases mean what they mean in YAML."""
    text = "name: x\nfilter: {any: [&a {event: {name: e}}, {not: *a}]}"
    assert read_workspace(written(tmp_path, text))["segments/x.yaml"]["filter"]["any"][1] == {
        "not": {"event": {"name": "e"}}
    }
