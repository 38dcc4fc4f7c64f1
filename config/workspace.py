"""The workspace folder: YAML files, read safely and within bounds."""

from pathlib import Path
from typing import Any, Final

import yaml

FILES_MAX: Final = 20_000
FILE_BYTES_MAX: Final = 1024 * 1024
FILE_ITEMS_MAX: Final = 100_000
"""What a file may hold, everything counted as often as it is referred to."""

DEMO_FOLDER: Final = Path(__file__).parent / "demo"


class WorkspaceError(Exception):
    """The folder cannot be read; the text names file and fix."""


def read_workspace(folder: Path) -> dict[str, Any]:
    """Every `<kind>/<name>.yaml` below the folder, parsed: {"segments/vip.yaml": {…}}.

    Raises:
        WorkspaceError: no such folder, a file that is too large or no YAML, or too many files.
    """
    if not folder.is_dir():
        raise WorkspaceError(
            f"{folder}: no such folder; HEADRACE_WORKSPACE names a folder with segments/ and campaigns/"
        )
    paths = sorted(path for path in folder.glob("*/*") if path.suffix in (".yaml", ".yml"))
    if len(paths) > FILES_MAX:
        raise WorkspaceError(f"{folder}: {len(paths)} files, at most {FILES_MAX}")
    return {path.relative_to(folder).as_posix(): _read(path) for path in paths}


def _read(path: Path) -> object:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise WorkspaceError(f"{path}: larger than {FILE_BYTES_MAX} bytes; split it")
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - it is the safe one, with a bound
    except (OSError, yaml.YAMLError, RecursionError) as error:
        raise WorkspaceError(f"{path}: {error}") from None
    except (ValueError, LookupError, AttributeError) as error:  # what PyYAML lets through of a value unlike its tag
        raise WorkspaceError(f"{path}: {error}") from None


class _Loader(yaml.SafeLoader):
    """Refuses a file whose references to references stand for more than it may hold; a time stays the text it is."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _weight(node, {}) > FILE_ITEMS_MAX:
            raise yaml.YAMLError(f"holds more than {FILE_ITEMS_MAX} items, counting what its aliases stand for")
        return node


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _weight(node: yaml.Node, known: dict[int, int]) -> int:
    """How many items a node stands for; too many where it holds itself."""
    found = known.get(id(node))
    if found is None:
        known[id(node)] = FILE_ITEMS_MAX + 1
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [each for pair in node.value for each in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        found = known[id(node)] = 1 + sum(_weight(child, known) for child in children)
    return found
