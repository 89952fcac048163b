"""Counts of pseudo-labels, by hand."""

import torch

from wafer_lab.metrics.pseudo_labels import PseudoLabels

NAMES = ("a", "b", "c")


def shares(metric):
    return {name: round(float(value), 4) for name, value in metric.compute().items()}


def test_classes_over_two_batches():
    metric = PseudoLabels(NAMES)
    metric.update(torch.tensor([0, 1, 2]), torch.tensor([True, True, False]), torch.tensor([0, 2, 2]))
    metric.update(torch.tensor([1, 1]), torch.tensor([True, True]), torch.tensor([1, -1]))
    # 4 of 5 counted; of the 3 whose truth is known 2 are right; a once, b three times.
    expected = {"mask_rate": 0.8, "pseudo_accuracy": 0.6667, "pseudo/a": 0.25, "pseudo/b": 0.75, "pseudo/c": 0.0}
    assert shares(metric) == expected


def test_labels_of_several():
    metric = PseudoLabels(NAMES)
    guess, counts = torch.tensor([[1.0, 0, 1], [0, 1, 0]]), torch.tensor([[True, True, False], [True, True, True]])
    metric.update(guess, counts, torch.tensor([[1.0, 1, 1], [-1, -1, -1]]))
    # 5 of 6 counted; two of them known, one right; said and counted: a once, b once.
    expected = {"mask_rate": 0.8333, "pseudo_accuracy": 0.5, "pseudo/a": 0.5, "pseudo/b": 0.5, "pseudo/c": 0.0}
    assert shares(metric) == expected


def test_nothing_is_no_division_by_zero():
    metric = PseudoLabels(NAMES)
    metric.update(torch.tensor([1]), torch.tensor([False]), torch.tensor([1]))
    assert set(shares(metric).values()) == {0.0}
