"""Losses without labels."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


def nt_xent(first: Tensor, second: Tensor, temperature: float = 0.5, exchange: bool = False) -> Tensor:
    """Normalised temperature-scaled cross-entropy of two views: each is to find the other among all.

    Source: Chen et al., "A simple framework for contrastive learning of visual representations", ICML 2020,
    arXiv:2002.05709, equation 1 and algorithm 1. -log(exp(s_ij) / sum_k exp(s_ik)) is computed as
    logsumexp_k(s_ik) - s_ij, which neither overflows nor loses small terms.

    Args:
        first: (B, D) float, projections of the first views; of any length, B at least 1.
        second: (B, D) float, of the second views.
        temperature: Of the cosine similarities, positive.
        exchange: Whether the processes that train together compare their views with each other's. Each then returns
            the mean over its own views, and the mean of their gradients is the gradient of the mean over all.

    Returns:
        Scalar, the mean over the 2B views; in float32 whatever autocast says.
    """
    with torch.autocast(first.device.type, enabled=False):
        anchors = F.normalize(torch.cat([first, second]).float(), dim=1)
        others, rank = (_gathered(anchors), dist.get_rank()) if exchange else (anchors, 0)
        similarity = anchors @ others.T / temperature
        views = len(anchors)
        own = torch.arange(views, device=anchors.device) + rank * views
        positive = torch.arange(views, device=anchors.device).roll(len(first)) + rank * views
        towards = similarity.gather(1, positive[:, None])[:, 0]
        similarity = similarity.scatter(1, own[:, None], float("-inf"))
        return (similarity.logsumexp(1) - towards).mean()


def feature_spread(features: Tensor) -> Tensor:
    """How evenly feature vectors fill the sphere: near 1 in all directions, 0 where all have collapsed into one.

    The standard deviation of each normalised component over the batch, times the root of their number; Chen and He,
    "Exploring simple siamese representation learning", CVPR 2021, arXiv:2011.10566, section 4.1.

    Args:
        features: (B, D) float.

    Returns:
        Scalar float32 in [0, 1].
    """
    unit = F.normalize(features.float(), dim=1)
    spread: Tensor = unit.std(0, correction=0).mean() * features.shape[1] ** 0.5
    return spread


def _gathered(own: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks; gradients find their way back."""
    from torch.distributed.nn.functional import all_gather

    return torch.cat(list(all_gather(own)))  # type: ignore[no-untyped-call]
