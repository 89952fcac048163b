"""Models that come with the checkout: where they lie, and what stands for one on a command line.

A model is `zoo/NAME.onnx`, and the card beside it, `zoo/NAME.md`, says what it is; see `wafer_lab.export.card`.
"""

import difflib
import os
import re
from pathlib import Path

import wafer_lab
from wafer_lab.errors import UserError

#: `zoo:NAME` names a model of the zoo wherever a model is asked for.
PREFIX = "zoo:"
#: The most that the file of a model may take, bytes.
LIMIT = 5_000_000

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


def folder() -> Path:
    """The zoo: $WAFER_LAB_ZOO, or `zoo` in the checkout that the package lies in; it need not be there."""
    return Path(os.environ.get("WAFER_LAB_ZOO") or Path(wafer_lab.__file__).resolve().parents[1] / "zoo")


def names() -> list[str]:
    """Names of the models that are there, sorted."""
    return sorted(file.stem for file in folder().glob("*.onnx"))


def located(model: Path | str) -> Path:
    """The file of a model that a user named.

    Args:
        model: A path, which is returned as it is, or `zoo:NAME`.

    Raises:
        UserError: The zoo has no such model, or is not there.
    """
    if not str(model).startswith(PREFIX):
        return Path(model)
    name, known = str(model).removeprefix(PREFIX).removesuffix(".onnx"), names()
    if name in known:
        return folder() / f"{name}.onnx"
    if not known:
        raise UserError(
            f"there is no model {model}: none lie in {folder()}. They come with a clone of the repository, not with "
            "the installed package; name the clone's folder zoo as WAFER_LAB_ZOO"
        )
    guess = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"; did you mean {PREFIX}{guess[0]}?" if guess else ";"
    raise UserError(f"the zoo has no model {name or '(no name)'}{hint} it has {', '.join(known)}")


def checked_name(name: str) -> str:
    """A name that a new model may have.

    Raises:
        UserError: It is none.
    """
    name = name.removeprefix(PREFIX)
    if not _NAME.fullmatch(name):
        raise UserError(f"'{name}' is no name for a model of the zoo; use small letters, digits, - and _, as in wm811k")
    return name
