import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from wafer_lab.config.build import build
from wafer_lab.workflows.assemble import build_network
from wafer_lab.workflows.novelty import bank_positions, knn_column

CPU = torch.device("cpu")


@pytest.fixture
def made(tiny):
    cfg = tiny("data.leave_out=[Donut]", "model.width=4")
    torch.manual_seed(0)
    network, datamodule = build_network(cfg).eval(), build(cfg.data)
    datamodule.setup()
    return network, datamodule


@torch.no_grad()
def unit_features(network, datamodule, part):
    found = torch.cat([network.encoder(batch.image) for batch in datamodule.batches(part, CPU)]).numpy()
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_distances_are_to_the_training_wafers_in_the_order_of_the_batches(made):
    network, datamodule = made
    found = knn_column(network, datamodule, ("test", "unknown"), CPU, k=3)
    neighbours = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(unit_features(network, datamodule, "train"))
    for part, column in found.items():
        reference = neighbours.kneighbors(unit_features(network, datamodule, part))[0][:, -1]
        assert column.dtype == np.float32
        assert column == pytest.approx(reference, abs=2e-3)  # a root near zero


def test_a_training_wafer_is_its_own_neighbour(made):
    network, datamodule = made
    column = knn_column(network, datamodule, ("train",), CPU, k=1)["train"]
    assert len(column) == len(datamodule.split.train)
    assert column.max() < 2e-3


def test_a_small_bank_is_used(made):
    network, datamodule = made
    whole, part = (knn_column(network, datamodule, ("test",), CPU, k=1, largest=n)["test"] for n in (10**6, 20))
    assert (part >= whole - 1e-3).all()
    assert part.mean() > whole.mean()


def test_the_bank_keeps_rare_classes_whole():
    stratum = np.random.default_rng(0).permutation([0] * 900 + [1] * 60 + [2] * 7)
    chosen = bank_positions(stratum, 100, seed=0)
    assert np.bincount(stratum[chosen]).tolist() == [47, 46, 7] or np.bincount(stratum[chosen]).tolist() == [46, 47, 7]
    assert np.array_equal(chosen, np.unique(chosen))
    assert np.array_equal(chosen, bank_positions(stratum, 100, seed=0))
    assert not np.array_equal(chosen, bank_positions(stratum, 100, seed=1))
    assert np.array_equal(bank_positions(stratum, 967, seed=0), np.arange(967))
