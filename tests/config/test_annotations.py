import pytest
from omegaconf import OmegaConf

from wafer_lab.config.annotations import describe, fits


def value(yaml):
    return OmegaConf.create(f"value: {yaml}").value


@pytest.mark.parametrize(
    ("yaml", "annotation"),
    [
        ("3", "int"),
        ("3", "float"),
        ("1e-3", "float"),  # OmegaConf's YAML reads it as a number
        ("true", "bool"),
        ("three", "str"),
        ("null", "int | None"),
        ("null", "Optional[int]"),
        ("3", "typing.Union[int, str]"),
        ("a", "Literal['a', 'b']"),
        ("[1, 2]", "list[int]"),
        ("[1, 2]", "tuple[int, int]"),
        ("[1, 2, 3]", "Tuple[float, ...]"),
        ("[1, 2]", "Sequence"),
        ("{a: 1}", "dict[str, int]"),
        ("{_target_: toy_fab.Network}", "float"),
        ("3", "Anything[that, is]"),
        ("3", "not a type("),
        ("/data", "str | os.PathLike[str]"),
    ],
)
def test_fits(yaml, annotation):
    assert fits(value(yaml), annotation)


@pytest.mark.parametrize(
    ("yaml", "annotation", "words"),
    [
        ("true", "int", "a whole number"),
        ("true", "float", "a number"),
        ("3.5", "int", "a whole number"),
        ("ten", "int | None", "a whole number or null"),
        ("'1e-3'", "float", "a number"),
        ("1", "bool", "true or false"),
        ("3", "str", "text"),
        ("null", "int", "a whole number"),
        ("c", "Literal['a', 'b']", "one of a, b"),
        ("1", "Literal[True]", "one of True"),
        ("3", "list[int]", "a list of whole numbers"),
        ("[1, a]", "list[int]", "a list of whole numbers"),
        ("[1, 2, 3]", "tuple[int, int]", "a list of 2"),
        ("abc", "Sequence[str]", "a list of texts"),
        ("3", "dict[str, int]", "key: value pairs"),
        ("a", "Optional[Union[int, float]]", "a whole number or a number or null"),
    ],
)
def test_does_not_fit(yaml, annotation, words):
    assert not fits(value(yaml), annotation)
    assert describe(annotation) == words


def test_aliases_are_opened_in_their_own_module():
    assert fits(3, "Size", "toy_fab.nets")
    assert fits(value("[3, 4]"), "Size", "toy_fab.nets")
    assert not fits("wide", "Size", "toy_fab.nets")
    assert not fits("multi", "Target", "toy_fab.losses")
    assert describe("Target", "toy_fab.losses") == "one of multiclass, multilabel"


def test_a_scalar_is_no_object():
    assert not fits("ten", "float | Module", "toy_fab.nets")
    assert describe("float | Module", "toy_fab.nets") == "a number"
