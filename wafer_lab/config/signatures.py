"""What a `_target_` can be called with, read from its source and never by importing it."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from wafer_lab.config import sources
from wafer_lab.config.sources import Class, Function, FunctionNode, Module, UnknownTargetError

_BASES_A_SCALAR_CAN_BE = {"Enum", "IntEnum", "StrEnum", "str", "int", "float", "bool"}


@dataclass(frozen=True)
class Parameter:
    """One keyword a target takes.

    Attributes:
        annotation: the type as written in the source, " | None" added where the default is None; None if there
            is none.
        required: True when there is no default.
        module: the module whose names the annotation uses.
    """

    annotation: str | None
    required: bool
    module: str = ""


@dataclass(frozen=True)
class Signature:
    """The keywords a target takes.

    Attributes:
        parameters: keyword -> Parameter, in the order of the source; positional-only ones are left out.
        accepts_kwargs: True when any further keyword is taken (`**kwargs`).
        attributes: a class's literal attributes, own and inherited, such as `targets = ("multiclass",)`.
    """

    parameters: Mapping[str, Parameter]
    accepts_kwargs: bool
    attributes: Mapping[str, object]


@cache
def read_signature(target: str) -> Signature | None:
    """Read the signature of a class, function or method from source.

    Args:
        target: dotted path, as in `_target_`: "torch.optim.AdamW".

    Returns:
        The signature, or None when the source cannot tell.

    Raises:
        UnknownTargetError: no such module or attribute, or a module where something callable is needed.
    """
    found = sources.find(target)
    if isinstance(found, Class):
        return _class_signature(found)
    if isinstance(found, Function):
        return _function_signature(found.module, found.node, found.bound)
    if isinstance(found, Module):
        raise UnknownTargetError(f"{target} is a module, not a class or a function", "", ())
    return None


def expand_alias(module: str, name: str) -> tuple[str, str] | None:
    """The type that a name in an annotation stands for, and the module its own names belong to.

    Args:
        module: where the annotation stands.
        name: a name used there, dotted or not.

    Returns:
        ("Literal['a', 'b']", "pkg.types") for an alias; ("object", "") for a class no YAML scalar can be;
        None when unknown.
    """
    try:
        owner = sources.find_module(module)
        found = sources.follow(owner, ast.parse(name, mode="eval").body) if owner else None
    except (UnknownTargetError, SyntaxError):
        return None
    if isinstance(found, sources.Alias):
        return ast.unparse(found.expression), found.module.name
    if isinstance(found, Class):
        bases = {ast.unparse(base).rpartition(".")[2] for base in found.node.bases}
        return None if bases & _BASES_A_SCALAR_CAN_BE else ("object", "")
    return None


def _class_signature(found: Class) -> Signature | None:
    line = sources.ancestry(found)
    attributes: dict[str, object] = {}
    for ancestor in reversed(line):
        attributes |= _literals(ancestor) if ancestor else {}
    signature = _constructor(line, "__init__") or _constructor(line, "__new__")
    if signature is None:
        return None if None in line else Signature({}, False, attributes)
    return Signature(signature.parameters, signature.accepts_kwargs, attributes)


def _constructor(line: list[Class | None], name: str) -> Signature | None:
    """Signature of the nearest `__init__` or `__new__` along a line of ancestors; None when none is seen."""
    for position, ancestor in enumerate(line):
        if ancestor is None:
            return None
        method = ancestor.members.get(name)
        if isinstance(method, ast.FunctionDef):
            own = _function_signature(ancestor.module, method, bound=True)
            return _with_forwarded(own, method, line[position + 1 :])
        if method is not None:
            return None
        if name == "__init__" and sources.has_decorator(ancestor.node, "dataclass"):
            return Signature(_fields(line[position:]), False, {})
    return None


def _with_forwarded(own: Signature, method: ast.FunctionDef, bases: list[Class | None]) -> Signature:
    """Add what `super().__init__(..., **kwargs)` hands on: the base's keywords that the call leaves open."""
    if method.args.kwarg is None:
        return own
    for call in ast.walk(method):
        if not isinstance(call, ast.Call) or ast.unparse(call.func) != f"super().{method.name}":
            continue
        if any(item.arg is None and ast.unparse(item.value) == method.args.kwarg.arg for item in call.keywords):
            base = _constructor(bases, method.name)
            if base is None:
                return own
            filled = {item.arg for item in call.keywords} | set(list(base.parameters)[: len(call.args)])
            handed_on = {name: value for name, value in base.parameters.items() if name not in filled}
            return Signature({**handed_on, **own.parameters}, base.accepts_kwargs, {})
    return own


def _function_signature(module: Module, node: FunctionNode, bound: bool) -> Signature:
    """Signature of a function; a bound one (a constructor, a classmethod) drops its first argument."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    padding: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    pairs = list(zip(positional, [*padding, *arguments.defaults], strict=True))
    pairs = pairs[max(len(arguments.posonlyargs), 1 if bound else 0) :]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    parameters = {name.arg: _parameter(name.annotation, default, module) for name, default in pairs}
    return Signature(parameters, arguments.kwarg is not None, {})


def _parameter(annotation: ast.expr | None, default: ast.expr | None, module: Module) -> Parameter:
    if annotation is None:
        text = None
    elif isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        text = annotation.value
    else:
        text = ast.unparse(annotation)
    if text and isinstance(default, ast.Constant) and default.value is None:
        text += " | None"
    return Parameter(text, default is None, module.name)


def _fields(line: list[Class | None]) -> dict[str, Parameter]:
    """The fields of a dataclass, inherited ones first."""
    fields: dict[str, Parameter] = {}
    for ancestor in reversed(line):
        if ancestor is None or not sources.has_decorator(ancestor.node, "dataclass"):
            continue
        for statement in ancestor.node.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                default, hidden = _field_default(statement)
                if not hidden:
                    name = statement.target.id
                    fields[name] = _parameter(statement.annotation, default, ancestor.module)
    return fields


def _field_default(statement: ast.AnnAssign) -> tuple[ast.expr | None, bool]:
    """Default of a dataclass field, and whether the constructor leaves the field out."""
    default = statement.value
    options: dict[str | None, ast.expr] = {}
    if isinstance(default, ast.Call) and ast.unparse(default.func).rpartition(".")[2] == "field":
        options = {keyword.arg: keyword.value for keyword in default.keywords}
        default = options.get("default", options.get("default_factory"))
    not_in_init = "init" in options and ast.unparse(options["init"]) == "False"
    return default, not_in_init or "ClassVar" in ast.unparse(statement.annotation)


def _literals(found: Class) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, binding in found.members.items():
        if isinstance(binding, ast.expr) and not name.startswith("__"):
            try:
                values[name] = ast.literal_eval(binding)
            except (ValueError, TypeError, SyntaxError):
                continue
    return values
