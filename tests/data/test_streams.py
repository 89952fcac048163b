"""Several batches side by side: their order, their start over, their resumption, and what they hold."""

import numpy as np
import pytest
import torch

from wafer_lab.data.augment import MapAugment
from wafer_lab.data.batches import EpochBatches
from wafer_lab.data.split import Split, leave_out, without_judged
from wafer_lab.data.streams import JointBatches, Stream
from wafer_lab.processes import WHOLE


def joint(resumed_at=(0, 0)):
    few = EpochBatches(100, 20, 4, seed=1, drop_last=True, resumed_at=resumed_at)
    many = EpochBatches(0, 96, 8, seed=2, drop_last=True, resumed_at=resumed_at)
    return JointBatches([few, many], resumed_at)


def epoch(sampler, number):
    sampler.set_epoch(number)
    return [tuple((r.position.tolist(), r.seed) for r in requests) for requests in sampler]


def test_an_epoch_is_one_pass_over_the_longer_stream_and_the_shorter_starts_over():
    batches = epoch(joint(), 0)
    assert len(batches) == len(joint()) == 12
    assert sorted(p for _, (many, _) in batches for p in many) == list(range(96))
    few = [p for (one, _), _ in batches for p in one]
    for start in (0, 20):
        assert sorted(few[start : start + 20]) == list(range(100, 120))
    assert few[:20] != few[20:40]


def test_the_shorter_stream_goes_on_where_it_was_in_the_next_epoch():
    sampler = joint()
    few = [p for number in range(5) for (one, _), _ in epoch(sampler, number) for p in one]
    assert all(sorted(few[start : start + 20]) == list(range(100, 120)) for start in range(0, 240, 20))


def test_every_batch_is_a_function_of_epoch_and_number():
    assert epoch(joint(), 3) == epoch(joint(), 3) != epoch(joint(), 2)
    seeds = [seed for requests in epoch(joint(), 0) for _, seed in requests]
    assert len(set(seeds)) == len(seeds)


def test_a_stopped_epoch_goes_on_and_the_next_is_whole():
    resumed = joint(resumed_at=(2, 5))
    assert epoch(resumed, 2) == epoch(joint(), 2)[5:]
    assert epoch(resumed, 3) == epoch(joint(), 3)


@pytest.fixture
def served(tiny):
    """A data module that serves labelled and unlabelled wafers, as FixMatch asks."""
    from wafer_lab.config.build import build

    datamodule = build(tiny("data.label_fraction=0.25", "data.batch_size=8").data)
    datamodule.streams = (Stream("train"), Stream("all", (None, None), 3))
    datamodule.setup()
    return datamodule


def test_of_unlabelled_wafers_nobody_is_told_the_label(served):
    split = served.split
    assert len(split.unlabelled) > 2 * len(split.train) > 0
    samplers = [served._shuffled(number, stream) for number, stream in enumerate(served.streams)]
    labelled, everything = (torch.cat([request.position for request in sampler]) for sampler in samplers)
    known = served._targets[labelled]
    assert (known >= 0).all()
    assert set(served.rows[labelled.numpy()]) <= set(split.train)
    assert set(served.rows[everything.numpy()]) <= set(split.train) | set(split.unlabelled)
    hidden = np.isin(served.rows[everything.numpy()], split.unlabelled)
    assert (served._targets[everything].numpy()[hidden] == -1).all()


def test_a_batch_of_two_views_shows_each_wafer_twice_and_diagnostics_know_its_label(served):
    requests = next(iter(served.train_dataloader()))
    served.trainer = None
    first, second = (served.draw(one, stream) for one, stream in zip(requests, served.streams, strict=True))
    assert len(first.image) == len(first.row) == 8
    assert len(second.row) == 24
    assert len(second.image) == 48
    truth = served.hidden_labels(second)
    assert np.array_equal(truth, served.label[second.row.numpy()])
    assert (truth >= 0).all()


def test_unlabelled_copies_of_judged_wafers_are_left_out():
    content = np.array([1, 2, 3, 4, 1, 2, 3, 9], dtype=np.uint64)
    whole = Split(train=np.array([0]), val=np.array([1]), test=np.array([2]), unlabelled=np.arange(4, 8))
    assert without_judged(whole, content).unlabelled.tolist() == [4, 7]
    lots = np.array(["a", "b", "c", "", "b", "", "x", "c"])
    assert without_judged(whole, content, lots).unlabelled.tolist() == []
    assert without_judged(whole, np.arange(8, dtype=np.uint64), lots).unlabelled.tolist() == [5, 6]


def test_unlabelled_copies_of_unknown_wafers_are_left_out():
    content = np.array([1, 2, 3, 4, 5, 4, 9], dtype=np.uint64)
    whole = Split(train=np.array([0, 3]), val=np.array([1]), test=np.array([2, 4]), unlabelled=np.array([5, 6]))
    found = leave_out(whole, np.arange(7) == 3, content)
    assert found.unknown.tolist() == [3]
    assert found.unlabelled.tolist() == [6]


def test_blur_draws_other_chances_than_the_views(served):
    seed = next(iter(served.train_dataloader()))[1].seed
    drawn, view = [], MapAugment(blur=1.0)

    class Noted(MapAugment):
        def soften(self, image, generator, share=WHOLE):
            drawn.append(torch.rand(8, generator=generator))
            return image

    served._softened(torch.zeros(2, 3, 4, 4), (Noted(blur=1.0), view), seed)
    assert not torch.equal(drawn[0], torch.rand(8, generator=torch.Generator().manual_seed(seed)))
