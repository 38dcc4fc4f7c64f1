"""Compile what runs for every event, prove it on the benchmark's events, and only then let it be used.

`make fast` runs it. It takes a C compiler and about a minute of processor time; what was built before is removed.
"""

import ast
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from config.compiled import BUILDS, MODULES, RECORDS, ROOT, SOURCES, digest

_BUILD: Final = """
import sys
from mypyc.build import mypycify
from setuptools import setup
setup(name="headrace", packages=[], script_args=["--quiet", "build_ext", "--inplace"],
      ext_modules=mypycify(sys.argv[1:], opt_level="2", debug_level="0"))
"""
_PROOF: Final = [sys.executable, "-m", "tests.compiled.proof"]


def split(source: str, module: str) -> tuple[str, list[str]]:
    """A module's source without its msgspec structs, which it imports from beside it; and their names.

    The compiler knows nothing of the arguments of a struct's class (`frozen`, `tag`, …): it would drop them.
    """
    names: list[str] = []
    lines = source.splitlines(keepends=True)
    tree = ast.parse(source)
    for node in reversed(tree.body):
        if isinstance(node, ast.ClassDef) and (node.keywords or _is_struct(node)):
            names.insert(0, node.name)
            del lines[node.lineno - 1 : node.end_lineno]
    if names:
        imports = [node.end_lineno or 0 for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        again = ", ".join(f"{name} as {name}" for name in names)
        lines.insert(max(imports), f"from {module}{RECORDS} import {again}\n")
    return "".join(lines), names


def _is_struct(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base) == "msgspec.Struct" for base in node.bases)


def compile_into(stage: Path) -> Path:
    """Compile a copy of the sources in an empty folder; returns the folder with what came of it."""
    for folder in SOURCES:
        shutil.copytree(ROOT / folder, stage / folder, ignore=shutil.ignore_patterns("__pycache__"))
    kept: list[Path] = []
    paths = [Path(module.replace(".", "/") + ".py") for module in MODULES]
    for module, path in zip(MODULES, paths, strict=True):
        source = (stage / path).read_text("utf-8")
        rest, names = split(source, module)
        if names:
            kept.append(path.with_name(path.stem + RECORDS + ".py"))
            (stage / kept[-1]).write_text(source, "utf-8")
            (stage / path).write_text(rest, "utf-8")
    subprocess.run([sys.executable, "-c", _BUILD, *map(str, paths)], cwd=stage, check=True, stdout=sys.stderr)
    shutil.rmtree(stage / "build")
    for path in [*kept, *(found.relative_to(stage) for found in stage.rglob("*.so"))]:
        (stage / "out" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(stage / path, stage / "out" / path)
    return stage / "out"


def prove(builds: Path) -> None:
    """Let sources and build decide the same events. Raises SystemExit where one byte differs."""
    found = [
        subprocess.run([*_PROOF, *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for arguments in ([], [str(builds)])
    ]
    if found[0] != found[1]:
        sys.exit(f"headrace: the compiled modules decide otherwise; they are not used:\n{found[0]}\n{found[1]}")
    print(f"headrace: compiled modules and sources agree: {found[0].strip()}", file=sys.stderr)


def main() -> None:
    """Build, prove, put in place."""
    name = digest()
    print("headrace: compiling; a minute or two", file=sys.stderr)
    with TemporaryDirectory(prefix="headrace-compiled-") as folder:
        out = compile_into(Path(folder) / "stage")
        builds = Path(folder) / "builds"
        shutil.copytree(out, builds / name)
        prove(builds)
        if name != digest():
            sys.exit("headrace: a source was changed while they were compiled; run it again")
        shutil.rmtree(BUILDS, ignore_errors=True)
        aside = BUILDS.with_name(f"{BUILDS.name}.new")
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(builds, aside)
        aside.rename(BUILDS)
    print(f"headrace: {len(MODULES)} modules compiled into {BUILDS}; to undo it, remove that folder", file=sys.stderr)


if __name__ == "__main__":
    main()
