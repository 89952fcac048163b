"""Where the encoders of several runs start: from nothing, from weights, or from what is pretrained first."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from wafer_lab.config.build import build, resolved
from wafer_lab.errors import UserError
from wafer_lab.models.weights import load_weights
from wafer_lab.workflows.nested import child, fit_once
from wafer_lab.workflows.variants import chosen, variant

#: What a source may be: weights as the key `weights` takes them, null for none, `simclr`, or arguments of a run that
#: is trained first.
Given = str | Sequence[str] | None
#: Sources that are pretrained first, by their name.
PRETRAINED: dict[str, Sequence[str]] = {"simclr": ("task=simclr",)}


@dataclass(frozen=True)
class Start:
    """One starting point.

    Attributes:
        name: What it is called.
        weights: As the key `weights` takes them; None for none, and where they are yet to be trained.
        pretraining: The config of the run that trains them first, if one does.
        hydra: The same with Hydra's node.
    """

    name: str
    weights: str | None = None
    pretraining: DictConfig | None = None
    hydra: DictConfig | None = None

    def ready(self) -> str | None:
        """The weights, trained first where they have to be; started again, those that were finished are kept."""
        if self.pretraining is None:
            return self.weights
        with chosen(self.hydra):
            fit_once(self.pretraining)
        return str(self.pretraining.paths.run)


def read_sources(cfg: DictConfig, given: Mapping[str, Given]) -> list[Start]:
    """The sources that a workflow's config names.

    Args:
        cfg: The run's config.
        given: Name -> what it is.

    Raises:
        UserError: A name is no folder's name, or the arguments of a pretraining do not compose.
    """
    return [_source(cfg, check_name("workflow.sources", name), what) for name, what in given.items()]


def _source(cfg: DictConfig, name: str, what: Given) -> Start:
    overrides = PRETRAINED.get(what) if isinstance(what, str) else what
    if overrides is None:
        assert what is None or isinstance(what, str)
        return Start(name, what)
    if not overrides or not all(isinstance(text, str) for text in overrides):
        raise UserError(
            f"workflow.sources.{name} must be null, imagenet, a file, a run's folder, simclr, or a list of arguments "
            f"such as ['task=simclr'], not {list(overrides)}"
        )
    made, whole = variant(cfg, overrides, f"workflow.sources.{name}")
    return Start(name, pretraining=child(made, f"pretrain_{name}", {}), hydra=whole)


def check_fit(starts: Iterable[tuple[Start, DictConfig]]) -> None:
    """Refuse weights of another encoder before anything is trained.

    Args:
        starts: Sources, each with the config of a run that starts from it.

    Raises:
        UserError: The weights do not fit the run's encoder, or will not when they are trained.
    """
    known = set()
    for source, cfg in starts:
        if (key := (source.name, str(resolved(cfg)["model"]))) in known or source == Start(source.name):
            continue
        known.add(key)
        encoder = build(cfg.model)
        if source.weights is not None:
            load_weights(encoder, source.weights)
        elif source.pretraining is not None:
            theirs = build(source.pretraining.model)
            shapes = [{name: value.shape for name, value in one.state_dict().items()} for one in (encoder, theirs)]
            if shapes[0] != shapes[1]:
                raise UserError(
                    f"workflow.sources.{source.name} trains the encoder of {_model(source.pretraining)} first, which "
                    f"does not fit {_model(cfg)}; use one model, or a source for each"
                )


def _model(cfg: DictConfig) -> str:
    said = {key: value for key, value in resolved(cfg)["model"].items() if key != "_target_"}
    name = str(cfg.model._target_).rpartition(".")[2]
    return f"{name}({', '.join(f'{key}={value}' for key, value in said.items())})"


def check_name(key: str, name: Any) -> str:
    """A name that is part of a folder's.

    Raises:
        UserError: It is not.
    """
    text = str(name)
    if not text or not text.replace("-", "").replace("_", "").isalnum():
        raise UserError(f"{key}: {text!r} names a folder; use letters, digits, - and _")
    return text


def check_different(key: str, values: Iterable[Any]) -> list[Any]:
    """A list that has something in it, and nothing twice.

    Raises:
        UserError: It has not.
    """
    found = list(values)
    if not found:
        raise UserError(f"{key} is empty; name at least one")
    if twice := [value for value in found if found.count(value) > 1]:
        raise UserError(f"{key} names {twice[0]} twice; name every one once")
    return found


def with_weights(cfg: DictConfig, weights: str | None) -> DictConfig:
    """A new config that starts from other weights."""
    made = OmegaConf.merge(cfg, {"weights": weights})
    assert isinstance(made, DictConfig)
    OmegaConf.set_readonly(made, True)
    return made
