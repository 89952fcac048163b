"""Tables of predictions with known contents."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wafer_lab.data.classes import WM811K_CLASSES
from wafer_lab.evaluation.predictions import Predictions

MakeTable = Callable[..., Predictions]


def _table(target: NDArray[Any], logits: NDArray[Any], names: Sequence[str], split: str) -> Predictions:
    rows = len(target)
    return Predictions(
        index=np.arange(rows),
        split=np.full(rows, split),
        view=np.zeros(rows, dtype=np.int8),
        target=target,
        logits=logits.astype(np.float32),
        class_names=tuple(names),
        target_kind="multiclass" if target.ndim == 1 else "multilabel",
        split_digest="5p117",
        data_fingerprint="da7a",
    )


@pytest.fixture(scope="session")
def multiclass_table() -> MakeTable:
    """N wafers, classes drawn from a prior, each right with the probability given, else uniformly wrong."""

    def make(
        rows: int = 200,
        names: Sequence[str] = ("Donut", "Loc", "none"),
        prior: Sequence[float] | None = None,
        right: float = 0.8,
        seed: int = 0,
        split: str = "test",
    ) -> Predictions:
        random = np.random.default_rng(seed)
        classes = len(names)
        weights = np.ones(classes) if prior is None else np.asarray(prior, dtype=float)
        target = random.choice(classes, rows, p=weights / weights.sum())
        other = (target + random.integers(1, classes, rows)) % classes
        called = np.where(random.random(rows) < right, target, other)
        logits = random.normal(size=(rows, classes))
        logits[np.arange(rows), called] += 10
        return _table(target, logits, names, split)

    return make


@pytest.fixture(scope="session")
def multilabel_table() -> MakeTable:
    """N wafers with random labels, each label right with the probability given."""

    def make(
        rows: int = 200,
        names: Sequence[str] = ("Donut", "Loc", "Scratch"),
        right: float = 0.9,
        seed: int = 0,
        split: str = "test",
    ) -> Predictions:
        random = np.random.default_rng(seed)
        target = (random.random((rows, len(names))) < 0.3).astype(np.int8)
        called = target.astype(bool) ^ (random.random(target.shape) >= right)
        return _table(target, np.where(called, 2.0, -3.0), names, split)

    return make


@pytest.fixture(scope="session")
def judged_table() -> MakeTable:
    """Val and test rows of 9 classes in several views, in lots, from a model that is too sure of itself.

    The logits are three times the log of a posterior, so the temperature of one view is 3.
    """

    def make(
        rows: int = 1500,
        names: Sequence[str] = WM811K_CLASSES,
        views: int = 8,
        target_kind: str = "multiclass",
        seed: int = 0,
    ) -> Predictions:
        random = np.random.default_rng(seed)
        classes = len(names)
        prior = np.r_[np.full(classes - 1, 0.3 / (classes - 1)), 0.7]
        if target_kind == "multilabel":
            target = (random.random((rows, classes)) < 0.2).astype(np.int8)
            margin = random.normal(2 * (2 * target - 1), 1)[None] + random.normal(0, 0.2, (views, rows, classes))
            logits = 3 * (4 * margin + np.log(0.2 / 0.8))
        else:
            target = random.choice(classes, rows, p=prior)
            seen = random.normal(size=(1, rows, classes)) + 2.5 * np.eye(classes)[target]
            logits = 3 * (2.5 * seen + np.log(prior)) + random.normal(0, 0.5, (views, rows, classes))
        part = np.where(np.arange(rows) < rows // 3, "val", "test")
        return Predictions(
            index=np.tile(np.arange(rows) * 2 + 1, views),
            split=np.tile(part, views),
            view=np.repeat(np.arange(views, dtype=np.int8), rows),
            target=np.concatenate([target] * views),
            logits=logits.reshape(-1, classes).astype(np.float32),
            class_names=tuple(names),
            target_kind=target_kind,  # type: ignore[arg-type]
            split_digest="5p117",
            data_fingerprint="da7a",
            lot=np.tile(np.char.add("lot", (np.arange(rows) // 20).astype(str)), views),
        )

    return make
