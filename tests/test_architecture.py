"""The house rules that a program can check: imports run one way, and rooms stay small."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "wafer_lab"
ORDER = ["errors", "data", "imbalance", "models", "losses", "metrics", "tasks", "evaluation", "active", "export"]
ORDER += ["tracking", "config", "workflows", "cli"]
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


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(file):
    assert not FORBIDDEN & {part.removesuffix(".py") for part in file.relative_to(PACKAGE).parts}
    assert len(file.read_text().splitlines()) <= 400
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} is too long"


def test_entry_points_stay_thin():
    assert len((PACKAGE.parent / "train.py").read_text().splitlines()) < 30


def test_only_one_module_instantiates():
    users = [f.name for f in FILES if "instantiate(" in f.read_text()]
    assert users == ["build.py"]
