"""House rules as tests: what no linter knows about this project is held here.

A rule takes one module and yields what breaks it; its docstring is the law. `PLANTED` shows each rule a
violation that it must see, because a test that cannot fail is a defect.
"""

import ast
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import packages_distributions, requires, version
from pathlib import Path
from statistics import median

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
FILE_LINES_MAX, FUNCTION_LINES_MAX, FUNCTION_LINES_MEDIAN_MAX = 400, 70, 25

PACKAGES = {"agents", "channels", "config", "streams", "tables", "tests"}
TOP_LEVEL = PACKAGES | {
    *(".ci", ".gitignore", "CHANGELOG.md", "LICENSE", "Makefile", "README.md"),
    *("app.py", "deploy", "docs", "pyproject.toml", "sdk"),
}
VAGUE = {"common", "core", "helper", "helpers", "misc", "util", "utils"}
# Folder of a registry -> the name that marks a module of it as a part (None: every module is one).
FOLDERS = ("channels/sinks", "streams/ingest", "streams/journeys/steps", "streams/segments/filters")
REGISTRIES = {"channels": "CHANNEL", **dict.fromkeys(FOLDERS)}
CONTRACTS = {contract["id"]: contract for contract in PYPROJECT["tool"]["importlinter"]["contracts"]}
IMPURE_MODULES = set(CONTRACTS["pure"]["forbidden_modules"])
IMPURE_CALLS = {"__import__", "eval", "exec", "hash", "input", "open", "print"}
WALL_CLOCK = r"time\.(time|clock_gettime)(_ns)?|datetime\.(datetime\.(now|today|utcnow)|date\.today)"
STOPWATCH = r"time\.(monotonic|perf_counter)(_ns)?"
CLOCK_PLACES = {
    WALL_CLOCK: ("config/clock.py", *(f"tests/{name}/" for name in ("bench", "broker", "browser", "chaos", "mel"))),
    STOPWATCH: ("config/clock.py", "agents/", "tests/"),
}
# "path:function" -> why this one place may catch everything and go on.
BROAD_EXCEPT_ALLOWED: dict[str, str] = {
    "agents/delivery/attempts.py:attempted": "a worker that ended would attempt the same request again, for ever",
    "streams/ingest/raw_record.py:read_record": "a record that breaks its reader would do so at each start again",
    "agents/web/bounces.py:_read": "anybody may send a mail there, and each run would end at the same one",
}
# Written so that the pattern does not find itself.
BANNED_TEXT = (
    r"(?<![\w.-])/+[w]ork(?![\w-])"
    r"|pypi\.org|pythonhosted\.org|registry\.npmjs|repo1?\.maven|crates\.io|proxy\.golang"
)

Function = ast.FunctionDef | ast.AsyncFunctionDef
Rule = Callable[["Module"], Iterable[str]]


@dataclass(frozen=True)
class Module:
    """One Python file, by its path from the root."""

    path: str
    source: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and name of what is imported, at any depth; `from a import b` gives `a` and `a.b`."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.lineno, node.module or ""
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)

    def mentions(self) -> Iterator[tuple[int, str]]:
        """Line and full name of every `a.b.c` whose `a` came from an import, whatever it was renamed to."""
        known: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
                known |= {alias.asname or alias.name: prefix + alias.name for alias in node.names}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Name | ast.Attribute):
                head, _, tail = ast.unparse(node).partition(".")
                yield node.lineno, f"{known.get(head, '')}.{tail}".rstrip(".")

    def functions(self) -> list[Function]:
        """Every function, outer ones before those inside them."""
        return [node for node in ast.walk(self.tree) if isinstance(node, Function)]


@cache
def files() -> list[str]:
    """Paths of what is, or is about to be, committed; where git knows nothing, of all that is not hidden."""
    git = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.check_output(git, cwd=ROOT, text=True, stderr=subprocess.DEVNULL).splitlines()
    except (OSError, subprocess.CalledProcessError):
        listed = []
    if not listed:
        every = (path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*"))
        listed = [path for path in every if not re.search(r"^data/|__pycache__|^\.(?!ci/|gitignore)", path)]
    return [path for path in listed if (ROOT / path).is_file()]


@cache
def modules() -> list[Module]:
    """Every Python file of the product and its tests."""
    ours = [path for path in files() if path.endswith(".py") and path.split("/")[0] in {*PACKAGES, "app.py"}]
    return [Module(path, (ROOT / path).read_text("utf-8")) for path in ours]


def length(function: Function) -> int:
    """Lines of a function, its docstring left out."""
    docstring = function.body[0] if ast.get_docstring(function) is not None else None
    spans = [(node.end_lineno or 0) - node.lineno + 1 for node in (function, docstring) if node]
    return spans[0] - sum(spans[1:])


def fault_of_sentence(text: str | None) -> str:
    """Say what keeps the first line of a docstring from being one sentence ('' if nothing does)."""
    first, *rest = (text or "").strip().split("\n")
    if not first.endswith((".", "?", "!")) or (rest and rest[0].strip()):
        return f"must open with one sentence on one line, not {first!r}"
    return f"opens with two sentences: {first!r}" if re.search(r"[.?!]\s+[A-Z]", first) else ""


# ---- the rules


def short_file(module: Module) -> Iterator[str]:
    """A file has at most 400 lines."""
    if (lines := module.source.count("\n")) > FILE_LINES_MAX:
        yield f"{lines} lines"


def short_functions(module: Module) -> Iterator[str]:
    """A function has at most 70 lines, its docstring left out."""
    for function in module.functions():
        if length(function) > FUNCTION_LINES_MAX:
            yield f"{function.lineno}: {function.name} has {length(function)} lines"


def telling_name(module: Module) -> Iterator[str]:
    """No file or folder is called utils, helpers, common or core: names are nouns of the domain."""
    yield from VAGUE.intersection(module.path.removesuffix(".py").split("/"))


def speaking_module(module: Module) -> Iterator[str]:
    """A module opens with one sentence; only an empty `__init__.py` among the tests need not."""
    exempt = re.fullmatch(r"tests/.*/__init__\.py", module.path) and not module.source
    if not exempt and (fault := fault_of_sentence(ast.get_docstring(module.tree))):
        yield fault


def speaking_tests(module: Module) -> Iterator[str]:
    """A test says in one sentence what it proves."""
    for function in module.functions() if re.search(r"^tests/(.*/)?test_", module.path) else ():
        fault = fault_of_sentence(ast.get_docstring(function))
        if function.name.startswith("test") and fault:
            yield f"{function.lineno}: {function.name} {fault}"


def narrow_except(module: Module) -> Iterator[str]:
    """Whoever catches everything raises again; the places that may go on are listed with their reason."""
    inside = {node: function.name for function in module.functions() for node in ast.walk(function)}
    for node in ast.walk(module.tree):
        caught = ""
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "Exception"
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            caught = ast.unparse(node)
        raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
        place = f"{module.path}:{inside.get(node, '')}"
        if re.search(r"\b(Base)?Exception\b", caught) and not raises and place not in BROAD_EXCEPT_ALLOWED:
            yield f"{place}: catches everything and goes on"


def pure(module: Module) -> Iterator[str]:
    """streams/ imports nothing impure, at any depth, never waits, and calls no impure builtin."""
    for line, name in module.imports() if module.path.startswith("streams/") else ():
        if name.split(".")[0] in IMPURE_MODULES:
            yield f"{line}: imports {name}"
    for node in ast.walk(module.tree) if module.path.startswith("streams/") else ():
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield f"{node.lineno}: waits"
        if isinstance(node, ast.Call) and ast.unparse(node.func) in IMPURE_CALLS:
            yield f"{node.lineno}: calls {ast.unparse(node.func)}()"


def ordered(module: Module) -> Iterator[str]:
    """streams/ never lets the order of a set, which differs between processes, into a result."""
    for scope in (module.tree, *module.functions()) if module.path.startswith("streams/") else ():
        sets = set_names(scope)
        for node in ast.walk(scope):
            taken: list[ast.expr] = []
            if isinstance(node, ast.For | ast.comprehension):
                taken = [node.iter]
            elif isinstance(node, ast.List | ast.Tuple):
                taken = [item.value for item in node.elts if isinstance(item, ast.Starred)]
            elif isinstance(node, ast.Call):
                keeps_order = r"(list|tuple|enumerate|iter|zip|map|filter)|.*\.(join|fromkeys|extend)"
                taken = node.args if re.fullmatch(keeps_order, ast.unparse(node.func), re.DOTALL) else []
            yield from (f"{at.lineno}: sort {ast.unparse(at)}" for at in taken if is_set(at, sets))


def is_set(node: ast.expr, names: Iterable[str] = ()) -> bool:
    """Whether an expression plainly is a set: a literal, a comprehension, a call, an operation, a name."""
    if isinstance(node, ast.BinOp):
        return is_set(node.left, names) or is_set(node.right, names)
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) in {"set", "frozenset"}
    return isinstance(node, ast.Set | ast.SetComp) or (isinstance(node, ast.Name) and node.id in names)


def set_names(scope: ast.AST) -> set[str]:
    """Names that a scope annotates as, or assigns, a set."""
    found = set()
    for node in ast.walk(scope):
        annotation = getattr(node, "annotation", None)
        if annotation is not None and re.match(r"(frozen)?set\b", ast.unparse(annotation), re.IGNORECASE):
            found.add(node.arg if isinstance(node, ast.arg) else ast.unparse(getattr(node, "target", node)))
        elif isinstance(node, ast.Assign) and is_set(node.value):
            found.update(ast.unparse(target) for target in node.targets)
    return found


def one_clock(module: Module) -> Iterator[str]:
    """The wall clock is read in config/clock.py only, a stopwatch also in agents and tests."""
    for names, places in CLOCK_PLACES.items():
        for line, name in module.mentions() if not module.path.startswith(places) else ():
            if re.fullmatch(names, name):
                yield f"{line}: reads {name}"


def nobody_imports_app(module: Module) -> Iterator[str]:
    """Nothing imports app: it wires, and is wired by nobody."""
    yield from (f"{line}: imports {name}" for line, name in module.imports() if name.split(".")[0] == "app")


def registry_clashes(every: list[Module]) -> Iterator[str]:
    """Parts of one registry that import another part of it."""
    for folder, marker in REGISTRIES.items():
        inside = [one for one in every if re.fullmatch(rf"{folder}/(?!__init__)\w+\.py", one.path)]
        parts = [one for one in inside if not marker or re.search(rf"(?m)^{marker}\b.*=", one.source)]
        names = {part.path.removesuffix(".py").replace("/", ".") for part in parts}
        yield from (f"{part.path}: {name}" for part in parts for _, name in part.imports() if name in names)


PLANTED: tuple[tuple[Rule, str, str], ...] = (
    (short_file, "streams/a.py", "\n" * 401),
    (short_functions, "streams/a.py", "def f():\n" + "    x = 1\n" * 70),
    (telling_name, "agents/utils/a.py", ""),
    (speaking_module, "streams/a.py", '"""No stop"""'),
    (speaking_module, "streams/a.py", '"""One. Two."""'),
    (speaking_tests, "tests/test_a.py", "def test_a(): ..."),
    (narrow_except, "agents/a.py", "try: ...\nexcept: ..."),
    (narrow_except, "agents/a.py", "try: ...\nexcept (OSError, Exception): ..."),
    (narrow_except, "agents/a.py", "with contextlib.suppress(Exception): ..."),
    (pure, "streams/a.py", "def f():\n    import os.path"),
    (pure, "streams/a.py", "async def f(): ..."),
    (pure, "streams/a.py", "x = hash('a')"),
    (ordered, "streams/a.py", "for x in {1, 2}: ..."),
    (ordered, "streams/a.py", "x = [y for y in set(z) - w]"),
    (ordered, "streams/a.py", "def f(z: frozenset[int]): return tuple(z)"),
    (one_clock, "streams/a.py", "import datetime as d\nx = d.datetime.now(d.UTC)"),
    (one_clock, "agents/a.py", "from time import time as t\nx = t()"),
    (one_clock, "channels/a.py", "import time\nx = time.monotonic"),
    (nobody_imports_app, "tests/test_a.py", "from app import main"),
)
RULES = {rule.__name__: rule for rule, _, _ in PLANTED}


@pytest.mark.parametrize("name", RULES)
def test_every_module_keeps_the_rule(name: str) -> None:
    """Every module of the project keeps the rule that the rule's own docstring states."""
    broken = [f"{module.path}: {fault}" for module in modules() for fault in RULES[name](module)]

    assert broken == [], RULES[name].__doc__


@pytest.mark.parametrize(("rule", "path", "source"), PLANTED)
def test_each_rule_sees_its_planted_violation(rule: Rule, path: str, source: str) -> None:
    """No rule is blind: each one reports the violation planted for it."""
    assert list(rule(Module(path, source))) != []


def test_most_functions_are_short() -> None:
    """Half of all functions have at most 25 lines."""
    lengths = [length(function) for module in modules() for function in module.functions()]

    assert median(lengths) <= FUNCTION_LINES_MEDIAN_MAX


def test_registry_parts_are_independent() -> None:
    """Parts of a registry never import each other, and a part that did would be seen."""
    parts = [Module(f"channels/{name}.py", "import channels.b\nCHANNEL = 1") for name in ("a", "b")]

    assert "channels/a.py: channels.b" in list(registry_clashes(parts))
    assert list(registry_clashes(modules())) == []


def test_no_file_names_the_workplace_or_a_package_index() -> None:
    """Nothing that is committed depends on where it was written or where packages came from."""
    texts = {path: (ROOT / path).read_text("latin-1") for path in files()}

    assert [path for path, text in texts.items() if re.search(BANNED_TEXT, text)] == []


def test_the_top_level_is_the_sentence_of_the_design() -> None:
    """The root of the repository holds only the names that docs/ARCHITECTURE.md explains."""
    assert {path.split("/")[0] for path in files()} - TOP_LEVEL == set()


def test_the_changelog_keeps_its_shape() -> None:
    """CHANGELOG.md is in Keep a Changelog form and knows the version of pyproject.toml."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    first, *older = re.findall(r"(?m)^## (.*)$", text)
    sections = set(re.findall(r"(?m)^### (.*)$", text))

    assert text.startswith("# Changelog\n")
    assert first == "[Unreleased]" or first.startswith(f"[{PYPROJECT['project']['version']}] - ")
    assert [head for head in older if not re.fullmatch(r"\[[\d.]+\] - \d{4}-\d\d-\d\d", head)] == []
    assert sections <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_every_installed_distribution_is_pinned() -> None:
    """What pyproject.toml asks for, dependencies of dependencies included, is installed as pinned."""
    pairs = re.findall(r"(?m)^(\S+)==(\S+)$", (ROOT / "config/constraints.txt").read_text("utf-8"))
    pins = {canonicalize_name(name): pin for name, pin in pairs}
    wanted = PYPROJECT["project"]["dependencies"] + PYPROJECT["dependency-groups"]["dev"]
    todo, seen = [(Requirement(text), "") for text in wanted], {("lifetimes", "")}
    while todo:
        this, extra = todo.pop()
        if (this.name, extra) not in seen:
            seen.add((this.name, extra))
            below = [Requirement(text) for text in requires(this.name) or ()]
            needed = [req for req in below if not req.marker or req.marker.evaluate({"extra": extra})]
            todo += [(req, inner) for req in (*needed, this) for inner in ("", *req.extras)]

    assert {name for name, _ in seen if pins.get(canonicalize_name(name)) != version(name)} == set()


def test_nobody_else_provides_our_names() -> None:
    """`import faust` is faust-streaming, and no installed distribution shadows a package of ours."""
    providers = packages_distributions()

    assert set(providers["faust"]) == {"faust-streaming"}
    assert {name: providers[name] for name in {*PACKAGES, "app"} if name in providers} == {}
