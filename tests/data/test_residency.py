import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from wafer_lab.data.augment import MapAugment
from wafer_lab.data.maps import MapDataModule
from wafer_lab.data.residency import Canvases, Mapped
from wafer_lab.data.simulator import Simulator
from wafer_lab.data.streams import LABELLED
from wafer_lab.errors import UserError

CPU = torch.device("cpu")
KINDS = ("device", "memory", "mapped")
WAFERS = Simulator(num_wafers=300, seed=1, class_frequencies="uniform")
STRONG = MapAugment(noise=0.1)


@pytest.fixture
def maps(stores):
    def made(residency, **options):
        options = {"target": "multiclass", "num_classes": 9, "in_channels": 3, "canvas": 24, "batch_size": 32} | options
        datamodule = MapDataModule(source=WAFERS, cache=str(stores), residency=residency, augment=STRONG, **options)
        datamodule.setup()
        return datamodule

    return made


def served(datamodule, loader):
    """What a trainer's loader gives, as the task sees it."""
    return [datamodule.draw(batch, LABELLED[0]) for batch in loader]


def same(first, second):
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


@pytest.mark.parametrize(
    "options", [{}, *({"target": "mask", "num_classes": 8, "masks": masks} for masks in ("patterns", "weak"))]
)
def test_batches_are_bit_equal_wherever_the_maps_lie(maps, options):
    first, *others = (maps(kind, **options) for kind in KINDS)
    for other in others:
        same(served(first, first.train_dataloader()), served(other, other.train_dataloader()))
        same(list(first.batches("val", CPU)), list(other.batches("val", CPU)))
        assert np.array_equal(first.states(torch.arange(3)), other.states(torch.arange(3)))


def test_validation_batches_come_from_the_loader_as_they_are(maps):
    for kind in KINDS:
        datamodule = maps(kind)
        same([datamodule.draw(b) for b in datamodule.val_dataloader()], list(datamodule.batches("val", CPU)))


def test_workers_draw_the_same(maps):
    here, workers = maps("device"), maps("mapped", num_workers=2)
    loader = workers.train_dataloader()
    assert loader.num_workers == 2
    same(served(here, here.train_dataloader()), served(workers, loader))


def test_mapped_maps_hold_no_cells_and_travel_as_the_name_of_their_store(maps):
    datamodule = maps("mapped")
    assert isinstance(datamodule.place, Mapped)
    drawer = datamodule.canvases(LABELLED[0])
    assert len(pickle.dumps(drawer)) < 10_000 + datamodule.rows.nbytes
    request = next(iter(datamodule.train_dataloader().sampler))
    assert torch.equal(pickle.loads(pickle.dumps(drawer))[request][0], drawer[request][0])


@pytest.mark.parametrize("kind", KINDS)
def test_processes_together_draw_the_batches_of_one(maps, kind):
    whole = maps(kind)
    expected = served(whole, whole.train_dataloader())
    for rank in range(2):
        part = maps(kind)
        part.trainer = SimpleNamespace(global_rank=rank, world_size=2)
        own = served(part, part.train_dataloader())
        same(own, [type(batch)(*(value[rank::2] for value in batch)) for batch in expected])


def test_what_does_not_exist_is_refused(maps):
    with pytest.raises(UserError, match=r"unknown data.residency 'disk'; choose one of device, memory, mapped"):
        maps("disk")


def test_canvases_without_augmentation_are_the_maps(maps):
    datamodule = maps("mapped")
    request = next(iter(datamodule.val_dataloader().sampler))
    states, masks, answered = Canvases(datamodule.place, 24, (None,))[request]
    assert masks is None
    assert torch.equal(answered.position, request.position)
    assert np.array_equal(states.numpy(), datamodule.states(request.position))
