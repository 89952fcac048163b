"""Where a network looks: class activation maps, and numbers for how well they point.

CAM, Grad-CAM and Grad-CAM++ explain `encoder.forward_features(images)`: what pooling and head see, and all they see.
With attention after the last stage (CBAM, SE, ECA) that is the map after the gate. A known fault is to aim a hook at
the attention module instead and to catch its gate, or the map before it: each reaches the score only as a factor of the
other, so gradient times value is no share of the score, and a gate over positions is the same for every class.

That map is coarse, 2 x 2 behind a ResNet with its 7x7 stem on a canvas of 64, and four cells cannot point at a scratch.
HiResCAM therefore explains the finest stage where the encoder has stages.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from wafer_lab.errors import UserError
from wafer_lab.metrics.proportions import wilson
from wafer_lab.models.classifier import Classifier
from wafer_lab.models.heads import LinearHead
from wafer_lab.models.resnet import ResNet
from wafer_lab.models.timm_encoder import TimmEncoder

Method = Literal["cam", "grad_cam", "grad_cam_pp", "hires_cam"]
Interval = tuple[float, float]


def explain(network: Classifier, images: Tensor, labels: Tensor, method: Method | str = "grad_cam") -> Tensor:
    """Say which parts of each image speak for a class.

    The network is asked in evaluation mode and left as it was: batch statistics, training flags, the parameters'
    gradients and `requires_grad` do not change. Gradients run through pooling and head alone, except for `hires_cam`.
    Callers may be under `no_grad` or `inference_mode`; both are left for the moment that a gradient needs.

    Args:
        network: An encoder that has a feature map, under its head.
        images: (B, Ci, S, S) network input, on the device of the network.
        labels: (B,) int64, the class or label to explain on each image; to explain several, repeat the image.
        method: `cam`, `grad_cam`, `grad_cam_pp` or `hires_cam`; see the functions of that name.

    Returns:
        (B, S, S) float32 in [0, 1], the maximum of each map 1; all zero where nothing speaks for the class.

    Raises:
        UserError: An unknown method, an encoder without a feature map, or CAM where it does not apply.
    """
    if method not in METHODS:
        raise UserError(f"unknown method '{method}'; choose one of {', '.join(METHODS)}")
    return METHODS[method](network, images, labels)


def cam(network: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """Class activation map (Zhou et al. 2016, arXiv:1512.04150): the feature map weighted by the linear layer's row.

    Evidence against the class is cut off at zero, as in Grad-CAM, which then is the same map. Arguments and result as
    for `explain`.

    Raises:
        UserError: Pooling is not the mean over positions, or the head is not linear.
    """
    with _asked(network):
        features = _features(network, images)
        if not isinstance(network.head, LinearHead) or not _is_mean(network, features):
            raise UserError(
                "cam needs a network whose head is one linear layer on the mean over positions, and this one's is not; "
                "use grad_cam, which takes any network and is the same where cam applies"
            )
        weights = network.head.linear.weight.detach()[labels.to(features.device)]
        return _heat(network, _weighed(features, weights), images)


def grad_cam(network: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391): channels weighted by their mean gradient of the logit.

    Arguments and result as for `explain`.
    """
    with _asked(network):
        features = _features(network, images)
        gradients = _gradients(network, features, labels)
        return _heat(network, _weighed(features, gradients.mean((2, 3))), images)


def grad_cam_plus_plus(network: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """Grad-CAM++ (Chattopadhay et al. 2018, arXiv:1710.11063): positive gradients, weighted position by position.

    The paper explains Y = exp(S), S the logit, and weights channel k by the sum over positions of
    alpha * relu(dY/dA), alpha = Y'' / (2 Y'' + sum(A) Y'''), derivatives by A at that position, sum(A) over all
    positions of the channel. With S piecewise linear in A, S'' = 0 and Y', Y'', Y''' are exp(S) times G, G^2, G^3 with
    G = dS/dA. So exp(S) cancels in alpha = G^2 / (2 G^2 + sum(A) G^3), and as a factor of the whole map in the weights:
    gradients of the logit suffice, and no exponential can overflow. Where G > 0, and nothing else counts, alpha is
    1 / (2 + sum(A) G), which is how it is computed: no power of a small gradient underflows to 0 / 0.

    Two departures, both where the paper's assumptions end: layers after the pooling that are not piecewise linear
    (Hardswish, GELU) have S'' taken as 0, and a channel whose sum is negative, which no ReLU leaves, counts as 0.

    Arguments and result as for `explain`.
    """
    with _asked(network):
        features = _features(network, images)
        positive = _gradients(network, features, labels).relu()
        alpha = 1 / (2 + features.sum((2, 3), keepdim=True).relu() * positive)
        return _heat(network, _weighed(features, (alpha * positive).sum((2, 3))), images)


def hires_cam(network: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """HiResCAM (Draelos and Carin 2020, arXiv:2011.08891): gradient times value, position by position.

    No mean is taken over positions, so it may explain an early map, where a channel stands for different classes at
    different places: here the first stage's output, after its attention, of a ResNet; the last map of other encoders.
    On the last map of a network that `cam` takes, it is CAM. Costs a backward pass through the stages after the first.

    Arguments and result as for `explain`.
    """
    with _asked(network):
        if isinstance(network.encoder, ResNet):
            with torch.enable_grad():
                # A gradient that the images ask for reaches the stages also where the parameters are frozen.
                features, *_, last = network.encoder.forward_stages(images.clone().requires_grad_())
        else:
            features = last = _features(network, images).clone().requires_grad_()
        gradients = _score_gradients(network, last, labels, features)
        return _heat(network, (gradients * features.detach()).sum(1), images)


METHODS: dict[str, Callable[[Classifier, Tensor, Tensor], Tensor]] = {
    "cam": cam,
    "grad_cam": grad_cam,
    "grad_cam_pp": grad_cam_plus_plus,
    "hires_cam": hires_cam,
}


@contextmanager
def _asked(network: Classifier) -> Iterator[None]:
    """Evaluation mode, outside `inference_mode`, which enable_grad alone does not lift."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def _features(network: Classifier, images: Tensor) -> Tensor:
    """(B, K, h, w), what pooling sees."""
    return network.encoder.forward_features(images)


def _gradients(network: Classifier, features: Tensor, labels: Tensor) -> Tensor:
    """(B, K, h, w), of each image's own logit by the map that pooling sees."""
    leaf = features.clone().requires_grad_()  # a clone, because features may view the caller's inference tensor
    return _score_gradients(network, leaf, labels, leaf)


def _score_gradients(network: Classifier, last: Tensor, labels: Tensor, by: Tensor) -> Tensor:
    """Gradients of the logits by a map before the last or by that itself; in evaluation mode images do not mix."""
    with torch.enable_grad():
        logits: Tensor = network.head(network.encoder.pool(last))
        index = labels.to(logits.device).clone()  # the graph keeps it, which an inference tensor forbids
        score = logits.gather(1, index[:, None]).sum()
        return torch.autograd.grad(score, by)[0]


def _is_mean(network: Classifier, features: Tensor) -> bool:
    """Whether pooling takes the mean over positions: asked of the numbers, since a subclass may pool as it likes."""
    pooled, mean = network.encoder.pool(features), features.mean((2, 3))
    return pooled.shape == mean.shape and torch.allclose(pooled, mean, rtol=1e-3, atol=1e-5 * float(mean.abs().max()))


def _weighed(features: Tensor, weights: Tensor) -> Tensor:
    """Sum of channels (B, K, h, w) by weights (B, K): (B, h, w)."""
    return torch.einsum("bk,bkhw->bhw", weights, features)


def _heat(network: Classifier, evidence: Tensor, images: Tensor) -> Tensor:
    """Keep of (B, h, w) what speaks for the class, enlarge it to the canvas, scale each maximum to 1."""
    height, width = images.shape[-2:]
    # The feature map of a padded canvas covers the padding too.
    padding = network.encoder.padding if isinstance(network.encoder, TimmEncoder) else 0
    padded = (height + padding, width + padding)
    heat = F.interpolate(evidence.relu()[:, None], padded, mode="bilinear", align_corners=False)
    heat = heat[:, 0, :height, :width]
    peak = heat.amax((1, 2), keepdim=True)
    return torch.where(peak > 0, heat / peak, 0).float()


def energy_inside(heat: Tensor, mask: Tensor) -> Tensor:
    """Energy-based pointing game (Wang et al. 2020, Score-CAM, arXiv:1910.01279): the share of heat inside a region.

    Heat spread evenly scores the share of the area that the region covers.

    Args:
        heat: (B, S, S) in [0, 1].
        mask: (B, S, S) bool.

    Returns:
        (B,) in [0, 1]; 0 where there is no heat.
    """
    total = heat.sum((1, 2))
    return torch.where(total > 0, (heat * mask).sum((1, 2)) / total, 0)


def pointing_game(heat: Tensor, mask: Tensor, tolerance: float = 0) -> Tensor:
    """Pointing game (Zhang et al. 2016, arXiv:1608.00507): whether the maximum lies inside a region.

    A maximum enlarged from a coarse map is a plateau; its middle, the pixel of it next to its centroid, stands for it.

    Args:
        heat: (B, S, S) in [0, 1].
        mask: (B, S, S) bool.
        tolerance: Distance in pixels that the maximum may lie beside the region; 15 on the paper's photographs.

    Returns:
        (B,) bool; False where there is no heat.
    """
    peak = heat.amax((1, 2), keepdim=True)
    top = heat >= peak * (1 - 1e-6)
    row = torch.arange(heat.shape[1], device=heat.device)[None, :, None]
    column = torch.arange(heat.shape[2], device=heat.device)[None, None, :]

    def squared_distance(down: Tensor, across: Tensor) -> Tensor:
        return (row - down[:, None, None]) ** 2 + (column - across[:, None, None]) ** 2

    count = top.sum((1, 2))
    off_centroid = squared_distance((top * row).sum((1, 2)) / count, (top * column).sum((1, 2)) / count)
    pixel = off_centroid.masked_fill(~top, torch.inf).flatten(1).argmin(1)
    near = squared_distance(pixel // heat.shape[2], pixel % heat.shape[2]) <= tolerance**2
    return (near & mask).any(2).any(1) & (peak.flatten() > 0)


@dataclass(frozen=True)
class Quality:
    """How well a method's heat points at the defects of one class, on n wafers that have a known region.

    Attributes:
        name: Of the class.
        method: That made the heat.
        wafers: n; in a row that pools classes a wafer counts once, however many of its patterns are explained.
        chance: Mean share of the wafer that the region covers: what heat without a clue scores, in either measure.
        failed: Mean share of the failed dies that the region holds: the energy of a picture of them, without a network.
        energy: Mean share of heat inside the region.
        energy_interval: Its 95 % bootstrap interval over wafers.
        pointing: Share of wafers whose hottest place lies in the region.
        pointing_interval: Its 95 % Wilson interval for n observations: the patterns of one wafer count as one, since
            they are not independent.
        empty: Share of wafers without any heat.
    """

    name: str
    method: str
    wafers: int
    chance: float
    failed: float
    energy: float
    energy_interval: Interval
    pointing: float
    pointing_interval: Interval
    empty: float

    @classmethod
    def measured(
        cls,
        name: str,
        method: str,
        measures: NDArray[np.float64],
        wafer: NDArray[np.integer],
        resamples: int = 2000,
    ) -> "Quality":
        """Summarise the patterns explained.

        Args:
            name: Of the class, or of what is pooled.
            method: That made the heat.
            measures: (P, 5) chance, failed, energy, pointing and emptiness of P explained patterns, P at least 1.
            wafer: (P,) the wafer of each.
            resamples: Bootstrap draws of wafers.
        """
        chance, failed, energy, pointing, empty = (float(mean) for mean in measures.mean(0))
        spread = mean_interval(measures[:, 2], wafer, resamples)
        wafers = len(np.unique(wafer))
        low, high = wilson(pointing * wafers, wafers)
        hits = (float(low), float(high))
        return cls(name, method, wafers, chance, failed, energy, spread, pointing, hits, empty)


def mean_interval(
    values: NDArray[np.float64], wafer: NDArray[np.integer], resamples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile bootstrap 95 % interval of the mean of (P,) values; whole wafers are drawn, (P,) names each one's."""
    names, member = np.unique(wafer, return_inverse=True)
    sums, sizes = np.bincount(member, weights=values), np.bincount(member)
    random, count = np.random.default_rng(seed), len(names)
    draws = (random.integers(count, size=count) for _ in range(resamples))
    means = [sums[drawn].sum() / sizes[drawn].sum() for drawn in draws]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
