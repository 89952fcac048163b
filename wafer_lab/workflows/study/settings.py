"""What a study is: the `study` group of the config."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from wafer_lab.config.space import Entry, read_space

Sampler = Literal["tpe", "gp", "cmaes", "random", "grid"]
Pruner = Literal["none", "median", "hyperband", "wilcoxon"]


@dataclass(frozen=True)
class Objective:
    """What trials are chosen by.

    Attributes:
        metric: a val score that the task logs, `latency`, `parameters` or `cost`.
        direction: "max" or "min": which is better.
    """

    metric: str
    direction: str

    def better(self, value: float, than: float) -> bool:
        """Whether a value beats another."""
        return value > than if self.direction == "max" else value < than


@dataclass(frozen=True, kw_only=True)
class Study:
    """The settings of a study; `config.study` has checked them.

    Args:
        name: of the study, in the storage, in MLflow and of its folder.
        space: key -> what it is sampled from; see `config.space`.
        objectives: mappings of `metric` and `direction`.
        storage: a database's address: ``sqlite:///<file>`` or ``postgresql+psycopg://...``.
        n_trials: finished trials wanted in all, whoever runs them.
        timeout: seconds after which this process begins no further trial; None: no limit.
        seeds: fits per trial.
        sampler: how values are chosen.
        pruner: which trials are stopped early.
        startup_trials: drawn at random before the sampler learns from them.
        warmup_epochs: epochs of every fit before which no trial is pruned.
        seed: of the sampler.
        heartbeat: seconds between a worker's signs of life.
    """

    name: str
    space: dict[str, Any]
    objectives: Sequence[Mapping[str, str]]
    storage: str
    n_trials: int = 20
    timeout: float | None = None
    seeds: int = 1
    sampler: Sampler = "tpe"
    pruner: Pruner = "median"
    startup_trials: int = 10
    warmup_epochs: int = 1
    seed: int = 0
    heartbeat: int = 30

    @property
    def entries(self) -> list[Entry]:
        """The search space, each entry after those that its conditions ask about."""
        return read_space(self.space)[0]

    @property
    def targets(self) -> list[Objective]:
        """The objectives; the first is what a trial is pruned by."""
        return [Objective(**one) for one in self.objectives]
