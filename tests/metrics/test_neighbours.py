"""Votes of nearest neighbours against plain loops, and whitening against its definition."""

import math

import numpy as np
import pytest
import torch

from wafer_lab.metrics.neighbours import Moments, knn_probabilities


def one_by_one(bank, labels, query, num_classes, k, temperature):
    similarity = [float(torch.nn.functional.cosine_similarity(row, query, dim=0)) for row in bank]
    nearest = sorted(range(len(bank)), key=lambda i: -similarity[i])[:k]
    weight = [math.exp(similarity[i] / temperature) for i in nearest]
    votes = [0.0] * num_classes
    for i, w in zip(nearest, weight, strict=True):
        for c in range(num_classes):
            votes[c] += w / sum(weight) * (labels[i][c] if labels.ndim == 2 else float(labels[i] == c))
    return votes


@pytest.mark.parametrize("k", [1, 3, 50])
@pytest.mark.parametrize("several", [False, True])
def test_the_votes_are_those_of_a_plain_loop(k, several):
    generator = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(20, 6, generator=generator), torch.randn(9, 6, generator=generator)
    labels = torch.randint(0, 2 if several else 3, (20, 3) if several else (20,), generator=generator)
    found = knn_probabilities(bank, labels, queries, 3, k, 0.2)
    expected = [one_by_one(bank, labels, query, 3, k, 0.2) for query in queries]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_nobody_asks():
    assert knn_probabilities(torch.ones(3, 2), torch.tensor([0, 1, 0]), torch.ones(0, 2), 2).shape == (0, 2)


def test_whitened_features_are_uncorrelated_and_equally_wide():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(8, 8, generator=generator) * torch.logspace(0, -2.5, 8)
    features = torch.randn(500, 8, generator=generator) @ mixing + 3
    moments = Moments()
    for batch in features.split(64):
        moments.add(batch)
    mean, matrix = moments.whitening(torch.device("cpu"))
    white = ((features - mean) @ matrix).numpy()
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-2)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(8), atol=2e-2)


def test_a_direction_in_which_no_wafer_differed_does_not_count():
    features = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    moments = Moments()
    moments.add(features)
    mean, matrix = moments.whitening(torch.device("cpu"))
    other = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    white = (other - mean) @ matrix
    assert torch.linalg.matrix_rank(matrix) == 4
    assert white.abs().max() < 100
