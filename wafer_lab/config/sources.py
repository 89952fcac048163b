"""Find the source of a dotted name without importing it.

A mistyped key must be answered at once, while importing the module that would refuse it takes seconds
(torch 4 s, lightning 14 s on a cold machine). So modules are found on disk and parsed, re-exports are
followed, and nothing is executed. What source cannot tell (C extensions, names made at run time) comes back as None,
unknown, and is never guessed.
"""

import ast
import gc
import importlib.util
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

_BASES_WITHOUT_CONSTRUCTOR = {"object", "Generic", "Protocol", "ABC"}

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


class UnknownTargetError(LookupError):
    """The dotted name leads nowhere.

    Attributes:
        name: the part that is not there.
        candidates: the names that are.
    """

    def __init__(self, message: str, name: str, candidates: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.name = name
        self.candidates = sorted(candidates)


@dataclass(frozen=True)
class Reference:
    """`from module import name`, or `import module` when name is None."""

    module: str
    name: str | None


Binding = ast.ClassDef | FunctionNode | ast.expr | Reference


@contextmanager
def _no_collector() -> Iterator[None]:
    """Garbage is not looked for; else the growing tree is walked again and again, which takes as long as reading it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@dataclass(frozen=True, eq=False)
class Module:
    """A module on disk: a folder, a source file, both (a package) or neither (a C extension)."""

    name: str
    folders: tuple[Path, ...]
    source: Path | None

    @property
    def readable(self) -> bool:
        """Whether everything the module holds can be seen: it has source and no lazy `__getattr__`."""
        return self.source is not None and "__getattr__" not in self.bindings

    @cached_property
    def _parsed(self) -> tuple[dict[str, Binding], list[str]]:
        if self.source is None:
            return {}, []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in someone else's docstring is not our news
            with _no_collector():
                tree = ast.parse(self.source.read_bytes())
        package = self.name if self.folders else self.name.rpartition(".")[0]
        return bindings_of(tree.body, package)

    @property
    def bindings(self) -> dict[str, Binding]:
        """What each top-level name is bound to."""
        return self._parsed[0]

    @property
    def stars(self) -> list[str]:
        """The modules imported from with a star."""
        return self._parsed[1]

    def names(self) -> set[str]:
        """Every public name that can be asked of the module, submodules and star imports included."""
        names = set(self.bindings)
        for folder in self.folders:
            names |= {entry.stem for entry in folder.iterdir() if entry.suffix == ".py" or entry.is_dir()}
        for star in self.stars:
            other = find_module(star)
            names |= set(other.bindings) if other else set()
        return {name for name in names if not name.startswith("_")}


@dataclass(frozen=True)
class Class:
    """A class statement and the module whose names it uses."""

    module: Module
    node: ast.ClassDef

    @property
    def members(self) -> dict[str, Binding]:
        """What each name in the class body is bound to."""
        return bindings_of(self.node.body, self.module.name)[0]


@dataclass(frozen=True)
class Function:
    """A function, or a method; `bound` when its first argument is not the caller's."""

    module: Module
    node: FunctionNode
    bound: bool = False


@dataclass(frozen=True)
class Alias:
    """A name for a type expression, such as `Target = Literal["multiclass", "multilabel"]`."""

    module: Module
    expression: ast.expr


Found = Module | Class | Function | Alias | None
_Seen = frozenset[tuple[str, str]]


def find(target: str) -> Found:
    """Follow a dotted name from its top-level package to what it stands for; None when source cannot tell.

    Raises:
        UnknownTargetError: a part of the name is not there.
    """
    top, *rest = target.split(".")
    found: Found = find_module(top)
    for position, part in enumerate(rest):
        if isinstance(found, Module) and position < len(rest) - 1:
            # a folder answers first: torch/__init__.py need not be parsed to reach torch.optim
            found = _submodule(found, part) or _inner(found, part)
        else:
            found = _attribute(found, part, frozenset())
    return found


def follow(module: Module, expression: ast.expr, seen: _Seen = frozenset()) -> Found:
    """What an expression made of names stands for in a module: `nn.Module`, `Union[int, str]`.

    Raises:
        UnknownTargetError: a name in it is not there.
    """
    if isinstance(expression, ast.Name):
        return _module_attribute(module, expression.id, seen)
    if isinstance(expression, ast.Attribute):
        return _attribute(follow(module, expression.value, seen), expression.attr, seen)
    if isinstance(expression, ast.Subscript | ast.BinOp):
        return Alias(module, expression)
    return None


def ancestry(found: Class) -> list[Class | None]:
    """The class and its bases, nearest first; None stands for a base whose source cannot be found."""
    line: list[Class | None] = [found]
    for base in found.node.bases:
        expression = base.value if isinstance(base, ast.Subscript) else base
        if ast.unparse(expression).rpartition(".")[2] in _BASES_WITHOUT_CONSTRUCTOR:
            continue
        try:
            parent = follow(found.module, expression)
        except UnknownTargetError:  # a builtin
            parent = None
        line += ancestry(parent) if isinstance(parent, Class) else [None]
    return line


def has_decorator(node: ast.ClassDef | FunctionNode, name: str) -> bool:
    """Whether `@name`, `@module.name` or `@name(...)` stands above it."""
    calls = (item.func if isinstance(item, ast.Call) else item for item in node.decorator_list)
    return any(ast.unparse(call).rpartition(".")[2] == name for call in calls)


@cache
def find_module(name: str) -> Module | None:
    """The module of that dotted name; None where an inner part is not on disk.

    Raises:
        UnknownTargetError: the top-level package is not installed.
    """
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)  # of a top-level name: finds it, imports nothing
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise UnknownTargetError(f"no package {top!r} is installed; correct the name or pip install it", top)
    folders = tuple(Path(folder) for folder in spec.submodule_search_locations or ())
    origin = Path(spec.origin) if spec.has_location and spec.origin else None
    found = Module(top, folders, origin if origin and origin.suffix == ".py" else None)
    for part in rest:
        inner = _submodule(found, part)
        if inner is None:
            return None
        found = inner
    return found


def _submodule(parent: Module, part: str) -> Module | None:
    name = f"{parent.name}.{part}"
    for folder in parent.folders:
        if (folder / part / "__init__.py").is_file():
            return _module_at(name, folder / part, folder / part / "__init__.py")
        if (folder / f"{part}.py").is_file():
            return _module_at(name, None, folder / f"{part}.py")
        if any(folder.glob(f"{part}.*.so")) or any(folder.glob(f"{part}.*.pyd")):
            return _module_at(name, None, None)
        if (folder / part).is_dir():
            return _module_at(name, folder / part, None)
    return None


@cache
def _module_at(name: str, folder: Path | None, source: Path | None) -> Module:
    return Module(name, (folder,) if folder else (), source)


def _inner(owner: Module, part: str) -> Found:
    """A part that is no file: a class with methods, or a module re-exported under that name."""
    found = _attribute(owner, part, frozenset())
    if found is None and owner.source is not None and part not in owner.bindings:
        raise UnknownTargetError(f"no {part!r} in {owner.name}", part, owner.names())
    return found


def _attribute(owner: Found, name: str, seen: _Seen) -> Found:
    if isinstance(owner, Module):
        return _module_attribute(owner, name, seen)
    if isinstance(owner, Class):
        return _class_attribute(owner, name)
    return None


def _class_attribute(owner: Class, name: str) -> Found:
    for ancestor in ancestry(owner):
        if ancestor is None:
            return None
        member = ancestor.members.get(name)
        if isinstance(member, FunctionNode):
            return Function(ancestor.module, member, bound=has_decorator(member, "classmethod"))
        if member is not None:
            return None
    raise UnknownTargetError(f"no {name!r} in {owner.node.name}", name, owner.members)


def _module_attribute(owner: Module, name: str, seen: _Seen) -> Found:
    binding = None if (owner.name, name) in seen else owner.bindings.get(name)
    seen = seen | {(owner.name, name)}
    if isinstance(binding, ast.ClassDef):
        return Class(owner, binding)
    if isinstance(binding, FunctionNode):
        return Function(owner, binding)
    if isinstance(binding, Reference):
        source = find_module(binding.module)
        return source if binding.name is None else _attribute(source, binding.name, seen)
    if binding is not None:
        return follow(owner, binding, seen)
    return _submodule(owner, name) or _through_stars(owner, name, seen)


def _through_stars(owner: Module, name: str, seen: _Seen) -> Found:
    readable = owner.readable
    for star in owner.stars:
        other = find_module(star)
        if other is None or (other.name, name) in seen:
            continue
        try:
            found = _module_attribute(other, name, seen)
        except UnknownTargetError:
            continue
        if found is not None:
            return found
        readable = False
    if readable:
        raise UnknownTargetError(f"no {name!r} in {owner.name}", name, owner.names())
    return None


def bindings_of(statements: list[ast.stmt], package: str) -> tuple[dict[str, Binding], list[str]]:
    """What each name is bound to in the body of a module or class, and the modules imported with a star.

    Args:
        statements: the body.
        package: the package that relative imports start from.
    """
    names: dict[str, Binding] = {}
    stars: list[str] = []
    for statement, fallback in _flat(statements, False):
        for name, binding in _bound_by(statement, package):
            if name == "*" and isinstance(binding, Reference):
                stars.append(binding.module)
            elif not (fallback and name in names):  # `except ImportError: X = None` does not hide X
                names[name] = binding
    return names, stars


def _flat(statements: list[ast.stmt], fallback: bool) -> Iterator[tuple[ast.stmt, bool]]:
    """Statements with the bodies of if, try and with opened up; True marks `else` and `except`."""
    for statement in statements:
        if isinstance(statement, ast.If | ast.Try | ast.With):
            yield from _flat(statement.body, fallback)
            if isinstance(statement, ast.Try):
                for handler in statement.handlers:
                    yield from _flat(handler.body, True)
            if isinstance(statement, ast.If | ast.Try):
                yield from _flat(statement.orelse, True)
        else:
            yield statement, fallback


def _bound_by(statement: ast.stmt, package: str) -> Iterator[tuple[str, Binding]]:
    if isinstance(statement, ast.ClassDef | FunctionNode):
        yield statement.name, statement
    elif isinstance(statement, ast.ImportFrom):
        yield from _imported(statement, package)
    elif isinstance(statement, ast.Import):
        for alias in statement.names:  # `import a.b` binds a; `import a.b as c` binds a.b
            top = alias.name.split(".")[0]
            yield alias.asname or top, Reference(alias.name if alias.asname else top, None)
    elif isinstance(statement, ast.Assign):
        for target in statement.targets:
            if isinstance(target, ast.Name):
                yield target.id, statement.value
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
        yield statement.target.id, statement.value


def _imported(statement: ast.ImportFrom, package: str) -> Iterator[tuple[str, Binding]]:
    base = package
    for _ in range(statement.level - 1):
        base = base.rpartition(".")[0]
    source = ".".join(part for part in (base if statement.level else "", statement.module) if part)
    for alias in statement.names:
        yield alias.asname or alias.name, Reference(source, alias.name)
