"""The fab style: the textbook's wafers stay as they were, patterns lie where their class says, fails come in clumps."""

import numpy as np
import pytest

from wafer_lab.data.classes import WM811K_CLASSES
from wafer_lab.data.simulator import Simulator
from wafer_lab.data.simulator.fab import chance
from wafer_lab.data.simulator.grids import make_grid
from wafer_lab.errors import UserError

BATCHED = ("label", "cells", "patterns", "height", "width")


@pytest.fixture(scope="module")
def maps():
    """100 wafers of each class, as name -> list of (cells, patterns)."""
    found = {name: [] for name in WM811K_CLASSES}
    simulator = Simulator(num_wafers=900, class_frequencies="uniform", wafers_per_lot=2, seed=5, style="fab")
    for rows in simulator.rows():
        ends = np.cumsum(rows.height * rows.width)
        for label, height, width, end in zip(rows.label, rows.height, rows.width, ends, strict=True):
            span = slice(end - height * width, end)
            found[WM811K_CLASSES[label]].append(
                (rows.cells[span].reshape(height, width), rows.patterns[span].reshape(height, width))
            )
    return found


def test_the_textbook_is_what_it_was():
    """Stores that were made before there were styles are found again, by fingerprints that were written down then."""
    assert Simulator(num_wafers=700).fingerprint() == "807b870976cf963b"
    assert Simulator(num_wafers=500, target="multilabel", seed=3).fingerprint() == "f5d460c3002d7577"
    assert Simulator(num_wafers=700, style="fab").fingerprint() != Simulator(num_wafers=700).fingerprint()


def test_a_style_that_is_none():
    with pytest.raises(UserError, match="style='real'; give 'textbook' or 'fab'"):
        Simulator(style="real")


def test_same_seed_same_bytes_whatever_the_batch():
    whole, parts = (
        list(Simulator(num_wafers=120, target="multilabel", style="fab", lots_per_batch=lots).rows())
        for lots in (40, 1)
    )
    assert (len(whole), len(parts)) == (1, 5)
    for name in BATCHED:
        np.testing.assert_array_equal(getattr(whole[0], name), np.concatenate([getattr(rows, name) for rows in parts]))


def test_every_label_has_its_mask_and_none_has_none(maps):
    for name, sample in maps.items():
        assert len(sample) == 100
        for cells, patterns in sample:
            assert patterns.any() == (name != "none")
            assert not patterns[cells == 0].any()


def places(maps, name):
    """Of each wafer of a class, radius, cosine and sine of the dies of the pattern."""
    for _, patterns in maps[name]:
        grid, mask = make_grid(*patterns.shape), patterns > 0
        yield grid.radius[mask], grid.cos[mask], grid.sin[mask]


def test_edge_patterns_are_at_the_edge_and_loc_is_not(maps):
    for name in ("Edge-Loc", "Edge-Ring"):
        assert all(radius.max() > 0.88 for radius, _, _ in places(maps, name))
    off = [np.hypot((r * cos).mean(), (r * sin).mean()) for r, cos, sin in places(maps, "Loc")]
    assert min(off) > 0.15
    assert np.mean([radius.max() < 0.97 for radius, _, _ in places(maps, "Loc")]) > 0.6
    middle = [np.hypot((r * cos).mean(), (r * sin).mean()) for r, cos, sin in places(maps, "Center")]
    assert max(middle) < 0.35


def test_rings_go_most_of_the_way_round_and_some_are_open(maps):
    turns = np.array(
        [len(np.unique(np.floor(np.arctan2(sin, cos) / (np.pi / 8)))) for _, cos, sin in places(maps, "Edge-Ring")]
    )
    assert turns.min() >= 9  # of 16
    assert 0.1 < (turns <= 14).mean() < 0.6


def test_scratches_are_thin(maps):
    assert np.mean([(patterns > 0).mean() for _, patterns in maps["Scratch"]]) < 0.08
    assert all((patterns > 0).sum() >= 3 for _, patterns in maps["Scratch"])


def test_fails_are_uniform_by_die_and_alike_in_neighbours():
    numbers = chance((400, 30, 30), np.random.default_rng(0))
    assert numbers.min() >= 0
    assert numbers.max() < 1
    share, _ = np.histogram(numbers, bins=10, range=(0, 1))
    assert np.abs(share / numbers.size - 0.1).max() < 0.002
    near = np.corrcoef(numbers[:, :, 1:].ravel(), numbers[:, :, :-1].ravel())[0, 1]
    far = np.corrcoef(numbers[:, :, 5:].ravel(), numbers[:, :, :-5].ravel())[0, 1]
    assert near > 0.01 > abs(far)


def test_unlabelled_statistics_are_those_of_wm811k(maps):
    """Of the middle wafer, within a third of what the 39,838 wafers of docs/data.md show."""
    excess, rim, side = [], [], []
    for cells, _ in maps["none"]:
        grid, on, fail = make_grid(*cells.shape), cells > 0, cells == 2
        inside = fail[on & (grid.radius > 0.3) & (grid.radius < 0.8)].mean() + 0.01
        excess.append(fail[on & (grid.radius < 0.2)].mean() / inside)
        rim.append(fail[on & (grid.radius > 0.93)].mean() / inside)
        side.append(np.sqrt(cells.size))
    assert 0.8 < np.median(excess) < 1.7
    assert 1.8 < np.median(rim) < 3.8
    assert 0.35 < np.mean(np.array(side) < 27.5) < 0.65
