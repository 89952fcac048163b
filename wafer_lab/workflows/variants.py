"""The command line composed again with other choices: a study's trials, members of an ensemble, what is trained first.

A group's option can decide options of other groups, so a variant is composed as a whole and nothing is written into a
config that is there already.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from wafer_lab.config.diagnose import parse
from wafer_lab.errors import UserError


def whole_config(overrides: Sequence[str]) -> DictConfig:
    """Compose train.yaml with Hydra's own node."""
    return compose("train", overrides=list(overrides), return_hydra_config=True)


@contextmanager
def chosen(whole: DictConfig | None) -> Iterator[None]:
    """While the block lasts, Hydra's groups are as a variant chose them; None changes nothing."""
    usual = HydraConfig.instance().cfg
    if whole is not None:
        HydraConfig.instance().set_config(whole)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = usual


def plain(whole: DictConfig) -> dict[str, Any]:
    """A variant without Hydra's node, its interpolations as they are."""
    made: Any = OmegaConf.to_container(whole, resolve=False)
    del made["hydra"]
    return made  # type: ignore[no-any-return]


def variant(cfg: DictConfig, overrides: Sequence[str], what: str) -> tuple[DictConfig, DictConfig]:
    """This process's command line with other choices, under the name and in the folder of a run.

    Args:
        cfg: The run's config.
        overrides: Arguments that add to the command line, or take the place of those there with the same key.
        what: Who asks for them, for messages.

    Returns:
        The config, and with Hydra's node, for `chosen`.

    Raises:
        UserError: There is no command line, or an argument does not fit it.
    """
    if not HydraConfig.initialized():
        raise UserError(f"{what} needs a command line to add {' '.join(overrides)} to; start it with train.py")
    try:
        keys = {parse(text).key_or_group for text in overrides}
        typed = [text for text in HydraConfig.get().overrides.task if parse(text).key_or_group not in keys]
        whole = whole_config([*typed, *overrides])
    except HydraException as error:
        raise UserError(f"{what}: {' '.join(overrides)} does not compose ({str(error).splitlines()[0]})") from None
    own = {"name": str(cfg.name), "paths": {"run": str(cfg.paths.run)}}  # read before the choices are others
    with chosen(whole):
        made = OmegaConf.merge(plain(whole), own)
    assert isinstance(made, DictConfig)
    return made, whole
