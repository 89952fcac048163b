"""The rounds of active learning: which wafers have a label in each, and the model that is trained on them.

The labels of a round are a file in the folder of its run, written before it starts. So every run works by itself, and
whatever stops the whole, the rounds that have such a file are not chosen again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from wafer_lab.active.acquisition import NAMES, choose
from wafer_lab.active.start import start
from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.data.labelled import Labelled, read_labelled, write_labelled
from wafer_lab.errors import UserError
from wafer_lab.workflows.fit import FitResult
from wafer_lab.workflows.nested import child, fit_once
from wafer_lab.workflows.oracle import FILE as QUESTIONS
from wafer_lab.workflows.oracle import read_answers, write_questions
from wafer_lab.workflows.pool import ask

Rows = NDArray[np.int64]
Oracle = Literal["dataset", "file"]
LABELLED = "labelled.csv"


@dataclass(frozen=True)
class Round:
    """A finished round: the wafers that its model was trained on, and the result."""

    number: int
    labelled: Labelled
    result: FitResult


@dataclass(frozen=True)
class Rounds:
    """What the rounds of all acquisitions and seeds share; see conf/workflow/active.yaml.

    Args:
        cfg: The run's config.
        datamodule: Its data, opened and split.
    """

    cfg: DictConfig
    datamodule: WaferDataModule
    start: int | None
    balanced: bool
    batch: int
    rounds: int
    oracle: Oracle
    passes: int
    oversample: int

    def check(self) -> None:
        """Refuse more rounds than there are wafers to choose from.

        Raises:
            UserError: As `start`, or the batches are larger than the pool.
        """
        if min(self.batch, self.rounds) < 1:
            raise UserError(f"workflow.batch={self.batch} and workflow.rounds={self.rounds} must be at least 1")
        if self.oversample < 1 or self.passes < 2:
            raise UserError(
                f"workflow.oversample={self.oversample} and workflow.passes={self.passes} must be at least 1 and 2"
            )
        left, asked = len(self.side()) - len(self.first(0)), self.batch * self.rounds
        if asked > left:
            why = f"{asked} wafers in workflow.rounds={self.rounds}, and the pool has {left} after the start"
            known = self.start is None and left == 0
            fix = "set workflow.start to begin with fewer labels" if known else "choose smaller batches or fewer rounds"
            raise UserError(f"workflow.batch={self.batch}: {why}; {fix}")

    def side(self) -> Rows:
        """The rows of the training side; those without a label are among them where somebody can be asked for one."""
        split = self.datamodule.split
        return np.union1d(split.train, split.unlabelled) if self.oracle == "file" else split.train

    def first(self, seed: int) -> Rows:
        """The rows of the start: all that have a label, or some of them."""
        train = self.datamodule.split.train
        if self.start is None:
            return train
        return train[start(self.datamodule.labels("train"), self.start, self.balanced, seed)]

    def folder(self, name: str, seed: int, number: int) -> Path:
        """Of a round; acquisitions share round 0."""
        own = f"{name}_seed_{seed}_round_{number}" if number else f"start_seed_{seed}"
        return Path(self.cfg.paths.run) / own

    def child(self, name: str, seed: int, number: int, labelled: Path | None = None) -> DictConfig:
        """The config of a round."""
        data = {"labelled": str(labelled), "label_fraction": 1.0} if labelled else {}
        return child(self.cfg, self.folder(name, seed, number).name, {"seed": seed, "data": data})

    def run(self, name: str, seed: int) -> Iterator[Round]:
        """The rounds of one acquisition; they end before time where a person has to label wafers first.

        Raises:
            UserError: A person's answer is missing, or as `fit_once`.
        """
        before: Round | None = None
        for number in range(self.rounds + 1):
            file = self.folder(name, seed, number) / LABELLED
            if not file.is_file():
                chosen = self._start(seed) if before is None else self._more(before, name, seed)
                if chosen is None:
                    return
                write_labelled(file, chosen.index, chosen.label, self.datamodule.class_names)
            result = fit_once(self.child(name, seed, number, file))
            before = Round(number, self._read(file), result)
            yield before

    def _read(self, file: Path) -> Labelled:
        return read_labelled(file, self.datamodule.class_names, self.datamodule.target, len(self.datamodule.store))

    def _start(self, seed: int) -> Labelled:
        rows = self.first(seed)
        return Labelled("", rows, self._own(rows))

    def _own(self, rows: Rows) -> NDArray[np.integer]:
        """That the labels of rows are those of the data."""
        return np.full_like(self.datamodule.label[rows], -1)

    def _more(self, before: Round, name: str, seed: int) -> Labelled | None:
        """The labelled wafers of a round and those that its model chooses; None while these wait for labels."""
        number = before.number + 1
        questions = self.folder(name, seed, number) / QUESTIONS
        if questions.is_file():
            return _joined(before.labelled, read_answers(questions, self.datamodule))
        known = before.labelled.index
        rows = self._choose(before.result.run_dir, known, name, seed, number)
        if self.oracle == "dataset":
            return _joined(before.labelled, Labelled("", rows, self._own(rows)))
        write_questions(questions.parent, rows, self.datamodule.store)
        return None

    def _choose(self, run_dir: Path, known: Rows, name: str, seed: int, number: int) -> Rows:
        pool = np.setdiff1d(self.side(), known)
        print(f"\n{name} chooses {self.batch} of {len(pool):,} wafers", flush=True)
        key = (seed, number, NAMES.index(name))
        draws = int(np.random.SeedSequence(key).generate_state(1)[0])
        accelerator = self.cfg.trainer.accelerator
        asked = ask(run_dir, self.datamodule, name, pool, known, accelerator, self.passes, self.oversample, draws)
        return np.asarray(pool[choose(name, asked, min(self.batch, len(pool)), np.random.default_rng(key))])


def _joined(known: Labelled, more: Labelled) -> Labelled:
    index, label = ([getattr(one, column) for one in (known, more)] for column in ("index", "label"))
    return Labelled(known.file, np.concatenate(index), np.concatenate(label))
