"""What is said of a mistake: where it is, what is wrong, what was probably meant."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from omegaconf import DictConfig, ListConfig, OmegaConf

from wafer_lab.errors import UserError

_MANY = 12  # beyond so many names a message stops listing them


class ConfigWarning(UserWarning):
    """The config can be run, but probably not as meant."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a config.

    Attributes:
        path: where: "loss.gamma"; on a command line also the argument itself.
        message: what is wrong and what to do.
        level: an "error" stops the run, a "warning" is only printed.
    """

    path: str
    message: str
    level: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def refuse(found: Iterable[Problem]) -> None:
    """Raise one UserError that lists the errors among the problems, if there are any."""
    lines = list(dict.fromkeys(str(problem) for problem in found if problem.level == "error"))
    if len(lines) == 1:
        raise UserError(lines[0])
    if lines:
        raise UserError("\n  ".join([f"{len(lines)} things to put right:", *lines]))


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """A hint to append, "; did you mean gamma?"; empty when nothing is similar."""
    guess = closest(word, names)
    return f"; did you mean {guess}?" if guess else ""


def closest(word: str, names: Iterable[str]) -> str | None:
    """The most similar of the names, or None when none is similar."""
    by_lower = {name.lower(): name for name in names}
    matches = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[matches[0]] if matches else None


def listed(names: Iterable[str]) -> str:
    """Names for a message, cut where there are many."""
    names = sorted(names)
    return ", ".join(names[:_MANY]) + (f" and {len(names) - _MANY} more" if len(names) > _MANY else "")


def show(value: object) -> str:
    """A value as it would be written in YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, ListConfig):
        return str(OmegaConf.to_container(value))
    return "a group of keys" if isinstance(value, DictConfig) else repr(value)


def as_number(text: str) -> str | None:
    """The number that a text was meant to be, "1e-3" -> "1.0e-3"; None if it is none."""
    try:
        float(text)
    except ValueError:
        return None
    mantissa, exponent_sign, exponent = text.strip().lower().partition("e")
    return f"{mantissa}.0e{exponent}" if exponent_sign and "." not in mantissa else text.strip()
