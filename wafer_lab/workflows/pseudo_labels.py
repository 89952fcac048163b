"""Which unlabelled wafers a student may learn from, and as what: where its teacher is sure, up to a cap per class."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.data.labelled import Labelled, write_labelled
from wafer_lab.data.split import strata
from wafer_lab.data.views import VIEWS
from wafer_lab.errors import UserError
from wafer_lab.workflows.checkpoint import load_task
from wafer_lab.workflows.devices import device_for
from wafer_lab.workflows.finished import datamodule_of
from wafer_lab.workflows.predict import predict_split

FILE = "pseudo_labels.csv"


def add_pseudo_labels(cfg: DictConfig, datamodule: WaferDataModule) -> Labelled | None:
    """Let the teacher of a config label what it is sure of; those wafers join the data's part `train`.

    Args:
        cfg: A composed config; without `task.teacher` nothing is done.
        datamodule: Opened and split, not yet set up.

    Returns:
        The wafers that have joined, and as what.

    Raises:
        UserError: There is no unlabelled wafer, the teacher is of other data, another split or other classes, or it is
            sure of nothing.
    """
    if "teacher" not in cfg.task:
        return None
    run = Path(cfg.task.teacher)
    rows, train = datamodule.split.unlabelled, datamodule.split.train
    if len(rows) == 0:
        raise UserError(
            "task=pseudo_label labels unlabelled wafers, and the data have none on the training side; use data that "
            "have some, or hide labels with data.label_fraction=0.1"
        )
    probabilities = _probabilities(run, datamodule, rows, cfg.trainer.accelerator)
    own = datamodule.label[train]
    cap = len(rows) / len(train) if cfg.task.cap is None else cfg.task.cap
    guess, chosen = choose(probabilities, own, cfg.task.threshold, cap)
    if not chosen.any():
        raise UserError(f"{run} is sure of no unlabelled wafer; lower task.threshold={cfg.task.threshold}")
    found = Labelled(str(run), rows[chosen], guess[chosen])
    none = np.full((len(train), *own.shape[1:]), -1, dtype=guess.dtype)
    datamodule.relabel(Labelled(str(run), np.r_[train, found.index], np.concatenate([none, found.label])))
    return found


def choose(
    probabilities: NDArray[np.float64], labels: NDArray[np.integer], threshold: float, cap: float
) -> tuple[NDArray[np.integer], NDArray[np.bool_]]:
    """Pick the wafers of each class that a teacher is most sure of.

    Args:
        probabilities: (n, C) of unlabelled wafers; multi-class where `labels` are classes.
        labels: (m,) classes or (m, C) of 0/1 of the labelled wafers.
        threshold: Least probability of the class, or multi-label of every label or of its complement.
        cap: Most wafers of a class (combination of labels), as a multiple of its labelled ones; at least one.

    Returns:
        (n,) classes or (n, C) of 0/1, what the teacher says; (n,) bool, whether to believe it.
    """
    if labels.ndim == 1:
        guess: NDArray[np.integer] = probabilities.argmax(axis=1).astype(np.int16)
        sure = probabilities.max(axis=1)
    else:
        guess = (probabilities > 0.5).astype(np.int8)
        sure = np.maximum(probabilities, 1 - probabilities).min(axis=1)
    kinds = strata(np.concatenate([labels, guess]))
    known, kind = kinds[: len(labels)], kinds[len(labels) :]
    chosen = np.zeros(len(guess), dtype=bool)
    for one in np.unique(kind):
        of_it = np.flatnonzero(kind == one)
        most = max(1, round(cap * int((known == one).sum())))
        best = of_it[np.argsort(-sure[of_it], kind="stable")[:most]]
        chosen[best[sure[best] >= threshold]] = True
    return guess, chosen


def report(found: Labelled | None, datamodule: WaferDataModule, run_dir: Path) -> list[str]:
    """Write the pseudo-labels, if there are any, into the run's folder; how many, in a line for the console."""
    if found is None:
        return []
    write_labelled(run_dir / FILE, found.index, found.label, datamodule.class_names)
    counts = found.label.sum(0) if found.label.ndim == 2 else np.bincount(found.label, minlength=datamodule.num_classes)
    each = ", ".join(f"{name} {count:,}" for name, count in zip(datamodule.class_names, counts, strict=True))
    offered = len(found.index) + len(datamodule.split.unlabelled)
    return [f"labels {len(found.index):,} of {offered:,} unlabelled wafers: {each}"]


def _probabilities(
    run: Path, datamodule: WaferDataModule, rows: NDArray[np.int64], accelerator: str
) -> NDArray[np.float64]:
    """(n, C) what the teacher's predictor says of rows of the store."""
    loaded = load_task(run)
    facts = (
        ("data", loaded.record.get("data_fingerprint"), datamodule.fingerprint),
        ("parts of the data", loaded.record.get("split_digest"), datamodule.split_digest),
        ("classes", tuple(loaded.record["class_names"]), datamodule.class_names),
    )
    for what, theirs, ours in facts:
        if theirs != ours:
            raise UserError(
                f"{run} was trained on other {what}, and may have seen this run's test wafers; train the teacher on "
                "the same data, with the same split and data.seed"
            )
    teacher = datamodule_of(loaded.record["config"], run, datamodule.store).over(datamodule.store, rows)
    teacher.views = VIEWS[loaded.predictor.tta]
    logits = predict_split(loaded.network, teacher, ("test",), device_for(accelerator)).logits
    by_wafer = logits.reshape(len(teacher.views), len(rows), -1).transpose(1, 0, 2)
    return loaded.predictor.probabilities(by_wafer)
