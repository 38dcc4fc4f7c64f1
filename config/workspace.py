"""The workspace folder: YAML files, read safely and within bounds."""

from pathlib import Path
from typing import Any, Final

import yaml

FILES_MAX: Final = 20_000
FILE_BYTES_MAX: Final = 1024 * 1024
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
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise WorkspaceError(f"{path}: {error}") from None
