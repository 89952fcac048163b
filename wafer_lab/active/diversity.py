"""Wafers that differ from each other and from those that have a label: greedy choices among feature vectors."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_DISTANCES = 2**24  # in memory at a time


def k_centre(features: Tensor, labelled: Tensor, count: int) -> NDArray[np.int64]:
    """Greedy k-centre, the core-set of Sener and Savarese 2018 (arXiv:1708.00489).

    Again and again the wafer is chosen that is farthest from all that have a label or were chosen before.

    Args:
        features: (N, D) float of the pool.
        labelled: (L, D) of the wafers that have a label; with L = 0 the wafer farthest from the pool's mean is first.
        count: How many to choose, at most N.

    Returns:
        (count,) positions in the pool, in the order of choice.
    """
    mean = features.mean(0)
    features, labelled = features - mean, labelled - mean  # so that large means cost no digits
    size = (features**2).sum(1)
    nearest = torch.full_like(size, torch.inf) if len(labelled) else size.clone()
    step = max(1, _DISTANCES // len(features))
    for first in range(0, len(labelled), step):
        part = labelled[first : first + step]
        squares = size[:, None] + (part**2).sum(1) - 2 * features @ part.T
        nearest = torch.minimum(nearest, squares.min(1).values)
    chosen = []
    for number in range(count):
        place = int(nearest.argmax())
        chosen.append(place)
        distance = ((features - features[place]) ** 2).sum(1)
        nearest = torch.minimum(nearest, distance) if number or len(labelled) else distance
        nearest[chosen] = -torch.inf  # of copies the first one only, and nothing twice
    return np.array(chosen, dtype=np.int64)


def k_means_seeds(left: Tensor, right: Tensor, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """k-means++ seeding (Arthur and Vassilvitskii 2007) among the vectors left x right, which are never formed.

    A vector is the outer product of two factors, so |a x h - b x g|^2 = |a|^2 |h|^2 + |b|^2 |g|^2 - 2 (a.b)(h.g). The
    first one chosen is the longest, as in the code of BADGE's authors; every other with a chance proportional to the
    squared distance from the nearest chosen one.

    Args:
        left: (N, C) float.
        right: (N, D) float.
        count: How many to choose, at most N.
        generator: Of the draws.

    Returns:
        (count,) positions, in the order of choice.
    """
    left, right = left.double(), right.double()
    size = (left**2).sum(1) * (right**2).sum(1)
    nearest, chosen = size.clone(), [int(size.argmax())]
    for step in range(1, count):
        last = chosen[-1]
        inner = (left @ left[last]) * (right @ right[last])
        distance = (size + size[last] - 2 * inner).clamp(min=0)
        nearest = distance if step == 1 else torch.minimum(nearest, distance)
        nearest[chosen] = 0
        ends = nearest.cpu().numpy().cumsum()
        if ends[-1] > 0:
            place = int(np.searchsorted(ends, generator.random() * ends[-1], side="right"))
        else:  # only copies of chosen ones are left
            place = int(generator.choice(np.setdiff1d(np.arange(len(ends)), chosen)))
        chosen.append(place)
    return np.array(chosen, dtype=np.int64)


def gradient_factor(probabilities: Tensor, target: str) -> Tensor:
    """What the gradient of the last layer has beside the features: p - y for the answer y that the model would give.

    The gradient of the loss (cross-entropy, of classes or of labels) for the weights of a last linear layer is
    (p - y) x features; its length says how unsure the model is, its direction of what (Ash et al. 2020, BADGE,
    arXiv:1906.03671).

    Args:
        probabilities: (N, C).
        target: `multiclass` or `multilabel`.

    Returns:
        (N, C).
    """
    if target == "multiclass":
        return probabilities - torch.nn.functional.one_hot(probabilities.argmax(1), probabilities.shape[1])
    return probabilities - (probabilities >= 0.5).to(probabilities.dtype)
