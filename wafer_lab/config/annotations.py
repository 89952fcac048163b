"""Does a value from a config fit a parameter's annotation, given as source text?"""

import ast
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig

from wafer_lab.config.signatures import expand_alias

_NUMBER = (int, float)
_SCALARS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "int": ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    "float": ("a number", lambda value: isinstance(value, _NUMBER) and not isinstance(value, bool)),
    "bool": ("true or false", lambda value: isinstance(value, bool)),
    "str": ("text", lambda value: isinstance(value, str)),
    "Path": ("a path", lambda value: isinstance(value, str)),
    "PathLike": ("a path", lambda value: isinstance(value, str)),
    "None": ("null", lambda value: value is None),
}
_LISTS = {"list", "List", "Sequence", "Iterable", "Collection", "Container", "set", "Set", "frozenset"}
_DICTS = {"dict", "Dict", "Mapping", "MutableMapping"}
_TUPLES = {"tuple", "Tuple"}
_DEPTH = 20  # aliases of aliases; ends a self-referring one


def fits(value: object, annotation: str, module: str = "") -> bool:
    """Whether a config value can be passed where the annotation stands.

    An int serves where a float is asked, a bool is no number, and a list serves as tuple. A node that is
    built (one with `_target_`) fits anything, and so does every value where the annotation is not understood.

    Args:
        value: a scalar, None, ListConfig or DictConfig.
        annotation: source text, such as "Literal['a', 'b'] | None".
        module: the module whose names the annotation uses; aliases are looked up there.
    """
    if isinstance(value, DictConfig) and "_target_" in value:
        return True
    expression = _parse(annotation)
    return expression is None or any(_fits(value, part, at) for part, at in _alternatives(expression, module))


def describe(annotation: str, module: str = "") -> str:
    """What the annotation asks for, in words: "a number or null"; the annotation itself failing that."""
    expression = _parse(annotation)
    words: list[str] = []
    for part, at in _alternatives(expression, module) if expression else ():
        word = _words(part, at)
        if word and word not in words:
            words.append(word)
    choices = [str(choice) for choice in literals(annotation, module)]
    if choices:
        words.append(f"one of {', '.join(dict.fromkeys(choices))}")
    words.sort(key=lambda word: word == "null")
    return " or ".join(words) or annotation


def literals(annotation: str, module: str = "") -> list[object]:
    """The values that the annotation's Literal[...] parts allow."""
    expression = _parse(annotation)
    found: list[object] = []
    for part, _ in _alternatives(expression, module) if expression else ():
        if isinstance(part, ast.Subscript) and _last_name(part.value) == "Literal":
            found += _literal_values(part)
    return found


def _parse(annotation: str) -> ast.expr | None:
    try:
        return ast.parse(annotation, mode="eval").body
    except SyntaxError:
        return None


def _alternatives(expression: ast.expr, module: str, depth: int = 0) -> Iterator[tuple[ast.expr, str]]:
    """The members of a union, aliases opened up, each with the module its names belong to."""
    if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
        inner = _parse(expression.value)
        parts = [inner] if inner else []
    elif isinstance(expression, ast.BinOp) and isinstance(expression.op, ast.BitOr):
        parts = [expression.left, expression.right]
    elif isinstance(expression, ast.Subscript) and _last_name(expression.value) in {"Union", "Optional"}:
        parts = _arguments(expression)
        if _last_name(expression.value) == "Optional":
            parts = [*parts, ast.Constant(None)]
    elif isinstance(expression, ast.Subscript) and _last_name(expression.value) == "Annotated":
        parts = _arguments(expression)[:1]
    else:
        opened = _open_alias(expression, module) if depth < _DEPTH else None
        if opened is None:
            yield expression, module
            return
        parts, module = [opened[0]], opened[1]
    for part in parts:
        yield from _alternatives(part, module, depth + 1)


def _open_alias(expression: ast.expr, module: str) -> tuple[ast.expr, str] | None:
    name = _last_name(expression)
    plain = isinstance(expression, ast.Name | ast.Attribute)
    if not plain or not module or name in {*_SCALARS, *_LISTS, *_DICTS, *_TUPLES, "Any", "object"}:
        return None
    alias = expand_alias(module, ast.unparse(expression))
    if alias is None or alias == ("object", ""):
        return None
    inner = _parse(alias[0])
    return (inner, alias[1]) if inner else None


def _fits(value: object, expression: ast.expr, module: str) -> bool:
    if isinstance(expression, ast.Constant):
        return expression.value is not None or value is None
    name = _last_name(expression)
    if isinstance(expression, ast.Subscript):
        return _fits_generic(value, name, expression, module)
    if name in _SCALARS:
        return _SCALARS[name][1](value)
    if name in _LISTS or name in _TUPLES:
        return isinstance(value, Sequence) and not isinstance(value, str)
    if name in _DICTS:
        return isinstance(value, Mapping)
    if name == "Callable" or (module and expand_alias(module, ast.unparse(expression)) == ("object", "")):
        return not isinstance(value, str | int | float)  # an object is asked for; a scalar never is one
    return True


def _fits_generic(value: object, name: str, expression: ast.Subscript, module: str) -> bool:
    arguments = _arguments(expression)
    if name == "Literal":
        choices = _literal_values(expression)
        named = len(choices) < len(arguments)  # a constant of some module, whose value source does not tell
        return named or any(value == choice and type(value) is type(choice) for choice in choices)
    if name in _LISTS and isinstance(value, ListConfig):
        return all(fits(item, ast.unparse(arguments[0]), module) for item in value)
    if name in _TUPLES and isinstance(value, ListConfig):
        if len(arguments) == 2 and ast.unparse(arguments[1]) == "...":
            arguments = arguments[:1] * len(value)
        return len(arguments) == len(value) and all(
            fits(item, ast.unparse(argument), module) for item, argument in zip(value, arguments, strict=True)
        )
    return _fits(value, expression.value, module)


def _words(expression: ast.expr, module: str) -> str:
    name = _last_name(expression)
    if isinstance(expression, ast.Constant):
        return "null" if expression.value is None else ""
    if name in _SCALARS:
        return _SCALARS[name][0]
    if name in _DICTS:
        return "key: value pairs"
    if name in _TUPLES and isinstance(expression, ast.Subscript):
        arguments = _arguments(expression)
        if ast.unparse(arguments[-1]) != "...":
            return f"a list of {len(arguments)}"
    if name in _LISTS | _TUPLES:
        inner = _arguments(expression)[:1] if isinstance(expression, ast.Subscript) else []
        one = describe(ast.unparse(inner[0]), module) if inner else ""
        plural = {"a whole number": "whole numbers", "a number": "numbers", "text": "texts"}.get(one)
        return f"a list of {plural}" if plural else "a list"
    return ""


def _arguments(expression: ast.Subscript) -> list[ast.expr]:
    inner = expression.slice
    return list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]


def _literal_values(expression: ast.Subscript) -> list[object]:
    values = []
    for argument in _arguments(expression):
        with contextlib.suppress(ValueError):
            values.append(ast.literal_eval(argument))
    return values


def _last_name(expression: ast.expr) -> str:
    if isinstance(expression, ast.Subscript):
        expression = expression.value
    if isinstance(expression, ast.Constant) and expression.value is None:
        return "None"
    return ast.unparse(expression).rpartition(".")[2]
