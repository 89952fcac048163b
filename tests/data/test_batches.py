import numpy as np
import pytest
import torch

from wafer_lab.data.batches import EpochBatches


def drawn(sampler):
    return torch.cat([request.position for request in sampler]).tolist()


def test_validation_keeps_the_order_and_every_row():
    sampler = EpochBatches(10, 25, 8)
    assert drawn(sampler) == list(range(10, 35))
    assert len(sampler) == 4


def test_training_draws_each_row_once_in_an_order_of_its_seed_and_epoch():
    first, again, other = (EpochBatches(0, 100, 10, seed=s) for s in (1, 1, 2))
    assert sorted(drawn(first)) == list(range(100))
    assert drawn(first) == drawn(again) != drawn(other)
    again.set_epoch(1)
    assert drawn(first) != drawn(again)


def test_every_batch_has_its_own_seed():
    sampler = EpochBatches(0, 100, 10, seed=0)
    seeds = [int(request.seed) for request in sampler]
    sampler.set_epoch(1)
    seeds += [int(request.seed) for request in sampler]
    assert len(set(seeds)) == 20


def test_drop_last_never_leaves_nothing():
    assert [len(r.position) for r in EpochBatches(0, 25, 8, seed=0, drop_last=True)] == [8, 8, 8]
    assert [len(r.position) for r in EpochBatches(0, 5, 8, seed=0, drop_last=True)] == [5]


def test_weights_set_the_rate():
    weights = np.repeat([1.0, 3.0], [900, 100])
    sampler = EpochBatches(0, 1000, 100, seed=0, weights=weights)
    shares = []
    for epoch in range(10):
        sampler.set_epoch(epoch)
        shares.append(np.mean(np.array(drawn(sampler)) >= 900))
    assert np.mean(shares) == pytest.approx(0.25, abs=0.02)
