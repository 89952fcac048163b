"""The house rules that a program can check: imports run one way, and rooms stay small."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "wafer_lab"
ORDER = ["errors", "files", "processes", "data", "imbalance", "models", "losses", "metrics", "tasks", "evaluation"]
ORDER += ["active", "export", "tracking", "config", "workflows", "demo", "cli"]
FILES = sorted(PACKAGE.rglob("*.py"))
FORBIDDEN = {"utils", "common", "helpers", "misc", "core"}


def imported(tree: ast.AST) -> set[str]:
    """Names of the rooms of wafer_lab that a module imports, wherever in the file."""
    rooms = set()
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        rooms |= {name.split(".")[1] for name in names if name.startswith("wafer_lab.")}
    return rooms & set(ORDER)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_run_one_way(file):
    room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room == "__init__":
        assert not imported(ast.parse(file.read_text()))
        return
    assert room in ORDER, f"{room} is not a room of the design"
    back = [name for name in imported(ast.parse(file.read_text())) if ORDER.index(name) > ORDER.index(room)]
    assert not back, f"{room} may not import {back}"


def module_name(file: Path) -> str:
    """`wafer_lab.data.store`; of an `__init__.py`, its package."""
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def on_import(statements: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements that run when the module is imported: those outside functions and TYPE_CHECKING."""
    for node in statements:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from on_import(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for field in ("body", "handlers", "orelse", "finalbody"):
                yield from on_import(getattr(node, field, []))


def circle(sources: dict[str, str]) -> list[str] | None:
    """A circle of modules that import each other as they are imported, if there is one."""
    graph: dict[str, set[str]] = {}
    for module, text in sources.items():
        graph[module] = set()
        for node in on_import(ast.parse(text).body):
            if isinstance(node, ast.Import):
                graph[module] |= {alias.name for alias in node.names}
            else:
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                graph[module] |= {name if name in sources else str(node.module) for name in inner}
        graph[module] &= set(sources)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return None


def relative_imports(text: str) -> list[str]:
    return [ast.unparse(node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom) and node.level]


def test_no_module_imports_itself_round_a_circle():
    assert circle({module_name(file): file.read_text() for file in FILES}) is None


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_are_absolute(file):
    assert not relative_imports(file.read_text())


@pytest.mark.parametrize(
    ("back", "found"),
    [
        ("import p.a", True),
        ("from p import a", True),
        ("from p.a import x", True),
        ("try:\n    from p.a import x\nexcept ImportError:\n    pass", True),
        ("class C:\n    from p import a", True),
        ("from p.c import x", False),
        ("def f():\n    from p.a import x", False),
        ("if TYPE_CHECKING:\n    from p.a import x", False),
        ("if typing.TYPE_CHECKING:\n    pass\nelse:\n    from p.a import x", True),
    ],
)
def test_circles_are_seen(back, found):
    sources = {"p": "from p.a import x", "p.a": "from p.b import y", "p.b": back, "p.c": "x = 1"}
    assert (circle(sources) is not None) == found


def test_relative_imports_are_seen():
    assert relative_imports("from . import a\ndef f():\n    from ..b import c\nfrom d import e") == [
        "from . import a",
        "from ..b import c",
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(file):
    assert not FORBIDDEN & {part.removesuffix(".py") for part in file.relative_to(PACKAGE).parts}
    assert len(file.read_text().splitlines()) <= 400
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} is too long"


@pytest.mark.parametrize("name", ["train.py", "sweep.py"])
def test_entry_points_stay_thin(name):
    assert len((PACKAGE.parent / name).read_text().splitlines()) < 30


def test_only_one_module_instantiates():
    users = [f.name for f in FILES if "instantiate(" in f.read_text()]
    assert users == ["build.py"]
