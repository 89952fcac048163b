"""Calibration: probabilities that mean what they say.

Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017: temperature and vector scaling.
What is fitted is what is deployed: the negative log-likelihood is that of the probability averaged over the views, not
of a single view.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from wafer_lab.errors import UserError
from wafer_lab.evaluation.settings import CalibrationKind, TargetKind

Floats = NDArray[np.float64]

# Log temperatures stay within [-_LIMIT, _LIMIT]: where a model separates the data, there is no best one.
_LIMIT = math.log(100)
_STEPS = 200
_PART = 2048


@dataclass(frozen=True)
class Calibration:
    """Logits of several views -> one calibrated probability per class.

    Attributes:
        kind: `none`, `temperature` or `vector`.
        target_kind: `multiclass` (softmax) or `multilabel` (one sigmoid per label).
        scale: C factors of the logits, positive: one over the temperature.
        bias: C numbers added to the scaled logits; 0 but for `vector`.

    Raises:
        ValueError: scale and bias are not C finite numbers each, the scales positive, or a name is unknown.
    """

    kind: CalibrationKind
    target_kind: TargetKind
    scale: tuple[float, ...]
    bias: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.kind not in get_args(CalibrationKind) or self.target_kind not in get_args(TargetKind):
            raise ValueError(f"unknown calibration {self.kind!r} or target kind {self.target_kind!r}")
        if len(self.scale) != len(self.bias) or not all(map(math.isfinite, (*self.scale, *self.bias))):
            raise ValueError("scale and bias are not as many finite numbers each")
        if not all(factor > 0 for factor in self.scale):
            raise ValueError("a scale is not positive")

    @property
    def temperature(self) -> float:
        """The temperature; the geometric mean of `temperatures` where they differ."""
        return math.exp(-sum(map(math.log, self.scale)) / len(self.scale))

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The temperature of each of the C classes, 1 / scale; all the same for multi-class `temperature`."""
        return tuple(1 / factor for factor in self.scale)

    def probabilities(self, logits: NDArray[Any]) -> NDArray[np.float64]:
        """The mean over the views of softmax(scale * logits + bias); multi-label, of the sigmoid.

        Args:
            logits: (N, V, C), V views of each wafer.

        Returns:
            (N, C) float64 in [0, 1]; multi-class rows sum to 1.

        Raises:
            ValueError: the logits are not of C classes in one or more views.
        """
        if logits.ndim != 3 or logits.shape[1] < 1 or logits.shape[2] != len(self.scale):
            raise ValueError(f"logits of shape {logits.shape} are not (N, views, {len(self.scale)})")
        total = np.zeros((logits.shape[0], logits.shape[2]))
        for view in range(logits.shape[1]):  # one view at a time: eight of a large test set need not fit in memory
            scaled = logits[:, view].astype(np.float64) * self.scale + self.bias
            if self.target_kind == "multilabel":
                # The sigmoid as a tanh: no overflow at either end.
                total += 0.5 * (1.0 + np.tanh(0.5 * scaled))
            else:
                exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True, initial=-np.inf))
                total += exponentials / exponentials.sum(axis=1, keepdims=True)
        return np.asarray(total / logits.shape[1], dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """What `calibration_from` reads."""
        return asdict(self)


def calibration_from(values: Mapping[str, Any]) -> Calibration:
    """The calibration that `Calibration.to_dict` described.

    Raises:
        UserError: the values describe none.
    """
    try:
        scale, bias = (tuple(float(number) for number in values[name]) for name in ("scale", "bias"))
        return Calibration(values["kind"], values["target_kind"], scale, bias)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"this describes no calibration ({error}); fit it again with wafer-lab evaluate") from error


def fit_calibration(
    kind: CalibrationKind, logits: NDArray[Any], target: NDArray[Any], target_kind: TargetKind
) -> Calibration:
    """Minimise the mean negative log-likelihood of the probabilities averaged over the views.

    `temperature` is one factor for all classes, or one per label where multi-label; `vector` a factor and a bias per
    class. A class's own factor (its logarithm, around a shared one) and bias have a unit normal prior, which weighs
    about as much as one wafer: a class that hardly occurs stays as the others are. Temperatures are bounded to
    [0.01, 100], so data that the model separates perfectly do no harm.

    Args:
        kind: `none`, `temperature` or `vector`.
        logits: (N, V, C) float32, V views of each wafer: those that will be deployed.
        target: (N,) class indices, or (N, C) of 0/1.
        target_kind: `multiclass` or `multilabel`.

    Returns:
        The calibration; `none` is scale 1 and bias 0.
    """
    classes = logits.shape[2]
    neutral = Calibration(kind, target_kind, (1.0,) * classes, (0.0,) * classes)
    if kind == "none" or not len(logits):
        return neutral
    import torch

    each, biased = kind == "vector" or target_kind == "multilabel", kind == "vector"
    # Classes first and wafers last: three times faster than the other way round.
    columns = np.ascontiguousarray(np.transpose(logits, (2, 1, 0)))
    truth = np.ascontiguousarray(np.asarray(target, dtype=np.int64).T)
    # The shared log scale, then each class's deviation from it and each class's bias, where they are free.
    free = torch.zeros(1 + classes * (each + biased), dtype=torch.float64)
    optimiser = torch.optim.LBFGS(
        [free], max_iter=_STEPS, tolerance_grad=1e-6, tolerance_change=1e-9, line_search_fn="strong_wolfe"
    )

    def parts() -> tuple[Floats, Floats, Floats]:
        values = free.numpy().copy()
        own = values[1 : 1 + classes] if each else np.zeros(classes)
        return values, np.tanh((values[0] + own) / _LIMIT), values[1 + classes :] if biased else np.zeros(classes)

    def closure() -> float:
        values, bounded, bias = parts()
        scale = np.exp(_LIMIT * bounded)
        loss, by_scale, by_bias = _nll(columns, truth, scale, bias)
        by_value = by_scale * scale * (1 - bounded**2)
        gradient = [[by_value.sum()], by_value if each else [], by_bias if biased else []]
        prior = np.concatenate([[0.0], values[1:]])
        free.grad = torch.as_tensor((np.concatenate(gradient) + prior) / len(logits))
        return float((loss + 0.5 * (prior**2).sum()) / len(logits))

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    _, bounded, bias = parts()
    return Calibration(kind, target_kind, tuple(np.exp(_LIMIT * bounded).tolist()), tuple(bias.tolist()))


def _nll(logits: NDArray[Any], target: NDArray[np.int64], scale: Floats, bias: Floats) -> tuple[float, Floats, Floats]:
    """The negative log-likelihood of the view-averaged probability of what is true, and its gradient.

    Args:
        logits: (C, V, N).
        target: (N,) class indices, or (C, N) of 0/1.
        scale: (C,).
        bias: (C,).

    Returns:
        Sum over wafers and labels, and its (C,) derivatives by scale and bias.
    """
    loss, by_scale, by_bias = 0.0, np.zeros(len(scale)), np.zeros(len(scale))
    terms = _label_terms if target.ndim == 2 else _class_terms
    for start in range(0, logits.shape[2], _PART):  # parts fit the cache
        part = logits[:, :, start : start + _PART].astype(np.float64)
        log_true, slopes = terms(part * scale[:, None, None] + bias[:, None, None], target[..., start : start + _PART])
        highest = log_true.max(axis=-2, keepdims=True)
        weights = np.exp(log_true - highest)
        total = weights.mean(axis=-2, keepdims=True)
        loss -= float((highest + np.log(total)).sum())
        slopes *= weights / (total * logits.shape[1])  # each view by its share in the mean
        by_scale -= np.einsum("cvn,cvn->c", slopes, part)
        by_bias -= slopes.sum(axis=(1, 2))
    return loss, by_scale, by_bias


def _class_terms(scaled: Floats, target: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """(V, N) log softmax of the true class, and its (C, V, N) derivatives by the scores."""
    scaled -= scaled.max(axis=0)
    true = target[None, None]
    score = np.take_along_axis(scaled, true, axis=0)
    exponentials = np.exp(scaled, out=scaled)
    total = exponentials.sum(axis=0)
    slopes = np.divide(exponentials, -total, out=exponentials)
    np.put_along_axis(slopes, true, np.take_along_axis(slopes, true, axis=0) + 1, axis=0)
    return score[0] - np.log(total), slopes


def _label_terms(scaled: Floats, target: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """(C, V, N) log sigmoid of each label's truth, and its derivatives by the scores."""
    sign = 2.0 * target[:, None] - 1
    signed = scaled * sign
    log_true = np.minimum(signed, 0) - np.log1p(np.exp(-np.abs(signed)))
    return log_true, -np.expm1(log_true) * sign
