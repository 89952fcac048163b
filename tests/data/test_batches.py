import numpy as np
import pytest
import torch

from wafer_lab.data.batches import EpochBatches
from wafer_lab.errors import UserError
from wafer_lab.processes import Share


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


def shared(count, batch_size, of, epoch=0, **options):
    """Every process's batches: a list of lists of positions."""
    found = []
    for rank in range(of):
        sampler = EpochBatches(7, count, batch_size, share=Share(rank, of), **options)
        sampler.set_epoch(epoch)
        found.append([request.position.tolist() for request in sampler])
        assert len(found[-1]) == len(sampler)
    return found


@pytest.mark.parametrize("of", [2, 3, 4])
@pytest.mark.parametrize("weights", [None, np.repeat([1.0, 5.0], [90, 13])])
@pytest.mark.parametrize("epoch", [0, 3])
def test_the_batches_of_all_processes_are_those_of_one(of, weights, epoch):
    options = {"seed": 4, "weights": weights, "drop_last": True}
    whole = shared(103, 12, 1, epoch, **options)[0]
    parts = shared(103, 12, of, epoch, **options)
    for batch, shares in zip(whole, zip(*parts, strict=True), strict=True):
        assert {len(share) for share in shares} == {12 // of}
        assert np.array(shares).T.ravel().tolist() == batch


def test_all_processes_draw_a_batch_under_the_same_seed():
    seeds = [
        [int(request.seed) for request in EpochBatches(0, 48, 12, seed=1, drop_last=True, share=Share(rank, 3))]
        for rank in range(3)
    ]
    assert seeds[0] == seeds[1] == seeds[2]


@pytest.mark.parametrize(
    ("count", "batch_size", "of"), [(25, 8, 2), (25, 8, 4), (5, 4, 4), (3, 2, 2), (16, 4, 4), (7, 100, 5)]
)
def test_in_validation_every_process_has_as_many_batches_and_every_wafer_is_seen_once(count, batch_size, of):
    parts = shared(count, batch_size, of)
    assert len({len(batches) for batches in parts}) == 1
    assert all(batch for batches in parts for batch in batches)
    assert sorted(row for batches in parts for batch in batches for row in batch) == list(range(7, 7 + count))


def test_a_training_part_smaller_than_a_batch_is_shared_equally():
    assert [len(batch) for batches in shared(7, 12, 3, seed=0, drop_last=True) for batch in batches] == [2, 2, 2]


def test_what_cannot_be_shared_is_refused():
    with pytest.raises(UserError, match=r"batch_size=127 is of all 4 .* use 124"):
        EpochBatches(0, 100, 127, share=Share(0, 4))
    with pytest.raises(UserError, match=r"batch_size=2 .* use 4"):
        EpochBatches(0, 100, 2, share=Share(0, 4))
    with pytest.raises(UserError, match="3 wafers for 4 processes"):
        EpochBatches(0, 3, 8, share=Share(0, 4))
