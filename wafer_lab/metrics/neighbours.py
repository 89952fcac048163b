"""Classification by nearest neighbours: what features are worth before anything is trained on them."""

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 1 << 25  # similarities at once


def knn_probabilities(
    bank: Tensor, labels: Tensor, queries: Tensor, num_classes: int, k: int = 20, temperature: float = 0.07
) -> Tensor:
    """Let the k most similar labelled wafers vote, each with exp(cosine similarity / temperature).

    Source: Wu et al., "Unsupervised feature learning via non-parametric instance discrimination", CVPR 2018,
    arXiv:1805.01978, section 3.4.

    Args:
        bank: (M, D) float features of the labelled wafers.
        labels: (M,) int64 classes or (M, C) of 0/1.
        queries: (N, D) float.
        num_classes: C.
        k: Voters; M where the bank has fewer.
        temperature: Positive.

    Returns:
        (N, C) float32 in [0, 1]: shares of the votes for each class, which sum to 1, or for each label.
    """
    bank, queries = F.normalize(bank.float(), dim=1), F.normalize(queries.float(), dim=1)
    votes = F.one_hot(labels, num_classes) if labels.ndim == 1 else labels
    found = []
    for block in torch.split(queries, max(1, _BLOCK // len(bank))):
        similarity, nearest = (block @ bank.T).topk(min(k, len(bank)), dim=1)
        weight = (similarity / temperature).softmax(1)
        found.append((weight[:, :, None] * votes[nearest]).sum(1).clamp(max=1))
    return torch.cat(found) if found else queries.new_empty((0, num_classes))


class Moments:
    """Mean and covariance of features, batch by batch; in float64 on the CPU, for variances differ by many orders."""

    def __init__(self) -> None:
        self._count, self._sum, self._products = 0, torch.zeros(()), torch.zeros(())

    def add(self, features: Tensor) -> None:
        """Count (B, D) features."""
        wide = features.double().cpu()
        self._count += len(wide)
        self._sum = self._sum + wide.sum(0)
        self._products = self._products + wide.T @ wide

    def whitening(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """(D,) mean and (D, D) matrix in float32: `(features - mean) @ matrix` has unit covariance, or no variance.

        Directions with less than a millionth of the largest variance are left out, so those in which none of few
        wafers differed are not blown up.
        """
        mean = self._sum / self._count
        values, vectors = torch.linalg.eigh(self._products / self._count - mean.outer(mean))
        kept = values > 1e-6 * values.max()
        scale = torch.where(kept, values.clamp(min=1e-30).rsqrt(), torch.zeros_like(values))
        return mean.float().to(device), (vectors * scale).float().to(device)
