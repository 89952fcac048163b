"""Simulated wafers: reproducible, the stated classes and grids, and patterns where the masks say."""

from collections import Counter

import numpy as np
import pytest

from wafer_lab.data.classes import MIXEDWM38_CLASSES, WM811K_CLASSES
from wafer_lab.data.prepare import prepare
from wafer_lab.data.rows import Source
from wafer_lab.data.simulator import COMBINATIONS, Simulator
from wafer_lab.data.simulator.grids import make_grid
from wafer_lab.errors import UserError

BIT = {name: 1 << k for k, name in enumerate(MIXEDWM38_CLASSES)}


def wafers(simulator):
    """Every wafer as (label, cells (H, W), patterns (H, W), lot, wafer)."""
    for rows in simulator.rows():
        start = 0
        for i, (height, width) in enumerate(zip(rows.height, rows.width, strict=True)):
            end = start + int(height) * int(width)
            yield (
                rows.label[i],
                rows.cells[start:end].reshape(height, width),
                rows.patterns[start:end].reshape(height, width),
                rows.lot[i],
                rows.wafer[i],
            )
            start = end
        assert start == len(rows.cells) == len(rows.patterns)


def column(batches, name):
    return np.concatenate([getattr(rows, name) for rows in batches])


@pytest.fixture(scope="module")
def uniform():
    """1,800 wafers, 200 of each WM-811K class, in small lots for many grids and signatures."""
    return list(wafers(Simulator(num_wafers=1800, class_frequencies="uniform", wafers_per_lot=5, seed=7)))


def of_class(sample, name):
    return [wafer for wafer in sample if WM811K_CLASSES[wafer[0]] == name]


def test_it_is_a_source():
    simulator = Simulator(num_wafers=30)
    assert isinstance(simulator, Source)
    assert simulator.kind == "maps"
    assert simulator.class_names == WM811K_CLASSES
    assert simulator.notes() == {"lots": 2}
    (rows,) = simulator.rows()
    assert rows.label.dtype == np.int16
    assert rows.cells.dtype == rows.patterns.dtype == np.uint8
    assert rows.wafer.tolist() == [*range(1, 26), *range(1, 6)]
    assert len(rows) == len(rows.lot) == 30


def test_a_store_keeps_wafers_and_masks(tmp_path):
    simulator = Simulator(num_wafers=60, target="multilabel", lots_per_batch=2)
    store = prepare(simulator, tmp_path / "store")
    for i, (label, cells, patterns, lot, wafer) in enumerate(wafers(simulator)):
        np.testing.assert_array_equal(store.label[i], label)
        np.testing.assert_array_equal(store.map(i), cells)
        np.testing.assert_array_equal(store.patterns(i), patterns)
        assert (store.lot[i], store.wafer[i]) == (lot, wafer)


@pytest.mark.parametrize("target", ["multiclass", "multilabel"])
def test_same_seed_same_bytes_whatever_the_batch(target):
    first = Simulator(num_wafers=260, target=target, seed=3)
    second = Simulator(num_wafers=260, target=target, seed=3, lots_per_batch=1)
    whole, parts = list(first.rows()), list(second.rows())
    assert len(whole) == 1
    assert len(parts) == 11
    for name in ("label", "height", "width", "cells", "patterns", "lot", "wafer"):
        np.testing.assert_array_equal(column(whole, name), column(parts, name))
    assert first.fingerprint() == second.fingerprint()


def test_the_seed_changes_every_lot():
    first, second = (list(wafers(Simulator(num_wafers=100, seed=seed, shape=(30, 30)))) for seed in (0, 1))
    assert all((a[1] != b[1]).any() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    "change",
    [
        {"num_wafers": 101},
        {"target": "multilabel"},
        {"class_frequencies": "uniform"},
        {"seed": 1},
        {"wafers_per_lot": 24},
        {"random_defects": (40, 141)},
        {"texture": 0.1},
        {"pattern_density": 0.9},
        {"lot_similarity": 0.5},
        {"shape": (40, 41)},
    ],
)
def test_fingerprint_follows_what_the_wafers_depend_on(change):
    assert Simulator(**{"num_wafers": 100, **change}).fingerprint() != Simulator(num_wafers=100).fingerprint()


def test_fingerprint_is_that_of_the_resolved_frequencies():
    shares = {"Center": 1, "none": 3}
    assert (
        Simulator(class_frequencies=shares).fingerprint()
        == Simulator(class_frequencies={"none": 0.75, "Center": 0.25}).fingerprint()
    )


def test_states_masks_and_off_wafer_corners(uniform):
    for label, cells, patterns, _, _ in uniform:
        assert cells.max() <= 2
        assert (cells[[0, 0, -1, -1], [0, -1, 0, -1]] == 0).all()
        # An inscribed disc leaves 1 - pi / 4 = .215 of the grid off the wafer.
        assert 0.18 < (cells == 0).mean() < 0.28
        assert not patterns[cells == 0].any()
        name = WM811K_CLASSES[label]
        assert np.array_equal(np.unique(patterns[patterns > 0]), [] if name == "none" else [BIT[name]])


@pytest.mark.parametrize("name", ["Center", "Donut", "Edge-Loc", "Edge-Ring", "Loc", "Scratch"])
def test_fails_are_dense_inside_the_mask_but_not_certain(uniform, name):
    inside, outside = [], []
    for _, cells, patterns, _, _ in of_class(uniform, name):
        inside.append((cells[patterns > 0] == 2).mean())
        outside.append((cells[(patterns == 0) & (cells > 0)] == 2).mean())
    assert np.mean(np.array(inside) > np.array(outside)) > 0.98
    assert 0.65 < np.mean(inside) < 0.97
    assert np.mean(outside) < 0.2


def test_pattern_density_thins_the_patterns():
    def density(factor):
        sample = wafers(Simulator(num_wafers=60, class_frequencies={"Edge-Ring": 1}, pattern_density=factor, seed=2))
        return np.mean([(cells[patterns > 0] == 2).mean() for _, cells, patterns, _, _ in sample])

    assert density(0.5) < density(1.0) - 0.2


def test_fail_fractions_rank_as_in_wm811k(uniform):
    median = {
        name: np.median([(w[1] == 2).sum() / (w[1] > 0).sum() for w in of_class(uniform, name)])
        for name in WM811K_CLASSES
    }
    assert 0.04 < median["none"] < 0.15
    assert 0.35 < median["Random"] < 0.6
    assert 0.8 < median["Near-full"] <= 1
    assert median["none"] < median["Loc"] < median["Donut"] < median["Random"] < median["Near-full"]


def geometry(sample, name):
    """Of each wafer of a class: radii of the mask's dies, their coordinates, and the mask."""
    for _, _, patterns, _, _ in of_class(sample, name):
        grid, mask = make_grid(*patterns.shape), patterns > 0
        assert mask.any()
        yield grid.radius[mask], grid.x[mask], grid.y[mask], mask


def test_center_lies_in_the_middle(uniform):
    for radius, x, y, _ in geometry(uniform, "Center"):
        assert np.hypot(x.mean(), y.mean()) < 0.25
        assert radius.min() < 0.15


def test_donut_has_a_hole(uniform):
    found = list(geometry(uniform, "Donut"))
    assert np.mean([radius.min() > 0.03 for radius, *_ in found]) > 0.8
    assert all(0.2 < radius.mean() < 0.75 for radius, *_ in found)


def test_edge_ring_goes_round_the_edge(uniform):
    for radius, x, y, _ in geometry(uniform, "Edge-Ring"):
        assert radius.mean() > 0.8
        assert len(np.unique(np.floor(np.arctan2(y, x) / (np.pi / 8)))) >= 13


def test_edge_loc_is_an_arc_at_the_edge(uniform):
    for radius, x, y, _ in geometry(uniform, "Edge-Loc"):
        assert radius.max() > 0.9
        # The mean direction of a full ring is zero, that of an arc nearly one.
        assert np.hypot((x / radius).mean(), (y / radius).mean()) > 0.4


def test_loc_is_a_compact_cluster_off_the_middle(uniform):
    for _, x, y, mask in geometry(uniform, "Loc"):
        spread = np.sqrt(x.var() + y.var())
        assert spread < 0.5
        assert np.hypot(x.mean(), y.mean()) > 0.2
        assert mask.mean() < 0.35


def test_scratch_is_thin_and_long(uniform):
    for _, x, y, mask in geometry(uniform, "Scratch"):
        assert mask.mean() < 0.12
        # Erosion by one die in all four directions leaves nothing of a line three dies wide or less.
        core = mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
        assert core.sum() <= 0.1 * mask.sum()
        assert np.hypot(np.ptp(x), np.ptp(y)) > 0.15


@pytest.mark.parametrize("name", ["Near-full", "Random"])
def test_patterns_of_the_whole_wafer_cover_it(uniform, name):
    for _, cells, patterns, _, _ in of_class(uniform, name):
        np.testing.assert_array_equal(patterns > 0, cells > 0)


def test_none_has_more_fails_at_the_edge(uniform):
    edge, inner = [], []
    for _, cells, _, _, _ in of_class(uniform, "none"):
        radius = make_grid(*cells.shape).radius
        edge.append((cells[(radius > 0.95) & (cells > 0)] == 2).mean())
        inner.append((cells[(radius < 0.8) & (cells > 0)] == 2).mean())
    assert 1.5 < np.mean(edge) / np.mean(inner) < 5


def test_grids_are_those_of_wm811k(uniform):
    shapes = np.array(list({wafer[3]: wafer[1].shape for wafer in uniform}.values()))
    assert shapes.min() >= 25
    assert shapes.max() <= 175
    assert abs(np.median(shapes) - 33) <= 2
    assert 0.002 < (shapes.max(axis=1) > 64).mean() < 0.06
    assert len({tuple(shape) for shape in shapes.tolist()}) > 100


def test_a_fixed_grid():
    rows = next(Simulator(num_wafers=50, shape=(52, 40)).rows())
    assert set(rows.height.tolist()) == {52}
    assert set(rows.width.tolist()) == {40}


def test_more_dies_yield_better():
    def fails(side):
        sample = wafers(Simulator(num_wafers=100, class_frequencies={"none": 1}, shape=(side, side)))
        return np.mean([(cells == 2).sum() / (cells > 0).sum() for _, cells, _, _, _ in sample])

    assert fails(80) < fails(30) / 3


def test_lots_share_grid_and_signature():
    def centres(similarity):
        """Per lot: grids, and the spread of the cluster's place among its wafers."""
        simulator = Simulator(
            num_wafers=500, class_frequencies={"Loc": 1}, lot_similarity=similarity, random_defects=(5, 10)
        )
        lots = {}
        for _, _, patterns, lot, _ in wafers(simulator):
            grid = make_grid(*patterns.shape)
            place = grid.x[patterns > 0].mean(), grid.y[patterns > 0].mean()
            lots.setdefault(lot, []).append((*place, patterns.shape))
        assert len(lots) == 20
        assert all(len({shape for *_, shape in lot}) == 1 for lot in lots.values())
        return np.mean([np.var([wafer[:2] for wafer in lot], axis=0).sum() for lot in lots.values()])

    assert centres(0.95) < 0.5 * centres(0.0)


def test_a_lot_holds_few_types():
    types = {}
    for label, _, _, lot, _ in wafers(Simulator(num_wafers=500, class_frequencies="uniform", shape=(25, 25))):
        types.setdefault(lot, set()).add(int(label))
    # 25 independent draws from nine classes hold 8.5 of them on average.
    assert np.mean([len(found) for found in types.values()]) < 6.5


@pytest.mark.parametrize(
    ("frequencies", "share"),
    [
        (None, {"none": 0.4, "Edge-Ring": 0.15, "Near-full": 0.015}),
        ("wm811k", {"none": 147431 / 172950, "Near-full": 149 / 172950}),
        ("uniform", {"none": 1 / 9, "Scratch": 1 / 9}),
        ({"Donut": 3, "none": 1}, {"Donut": 0.75, "none": 0.25, "Loc": 0.0}),
    ],
)
def test_class_frequencies(frequencies, share):
    label = column(Simulator(num_wafers=1000, class_frequencies=frequencies, shape=(25, 25)).rows(), "label")
    assert len(label) == 1000
    for name, expected in share.items():
        assert abs((label == WM811K_CLASSES.index(name)).sum() - 1000 * expected) <= 1


def test_the_38_combinations():
    assert len(COMBINATIONS) == len(set(COMBINATIONS)) == 38
    assert Counter(map(len, COMBINATIONS)) == {0: 1, 1: 8, 2: 13, 3: 12, 4: 4}
    simulator = Simulator(num_wafers=38 * 4, target="multilabel", shape=(52, 52))
    assert simulator.class_names == MIXEDWM38_CLASSES
    label = column(simulator.rows(), "label")
    assert label.dtype == np.int8
    found = Counter(tuple(n for n, on in zip(MIXEDWM38_CLASSES, row, strict=True) if on) for row in label.tolist())
    assert {frozenset(names): count for names, count in found.items()} == dict.fromkeys(map(frozenset, COMBINATIONS), 4)
    has = dict(zip(MIXEDWM38_CLASSES, label.T.astype(bool), strict=True))
    assert not (has["Center"] & has["Donut"]).any()
    assert not (has["Edge-Loc"] & has["Edge-Ring"]).any()
    for alone in ("Near-full", "Random"):
        assert (label[has[alone]].sum(axis=1) == 1).all()


def test_every_label_has_its_mask():
    for label, _, patterns, _, _ in wafers(Simulator(num_wafers=38 * 4, target="multilabel", seed=5)):
        assert [int((patterns & BIT[name]).any()) for name in MIXEDWM38_CLASSES] == label.tolist()


def test_combinations_may_be_named_in_any_order():
    simulator = Simulator(num_wafers=20, target="multilabel", class_frequencies={"Scratch+Center": 1, "none": 1})
    assert sorted(map(sum, column(simulator.rows(), "label").tolist())) == [0] * 10 + [2] * 10


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"target": "mask"}, "target='mask'"),
        ({"class_frequencies": "real"}, "'wm811k', 'uniform'"),
        ({"class_frequencies": {"Centre": 1}}, "did you mean one of Center"),
        ({"class_frequencies": {"Center": -1}}, "zero or more"),
        ({"class_frequencies": {"Center": float("nan")}}, "zero or more"),
        ({"class_frequencies": {"Center": "many"}}, "zero or more"),
        ({"class_frequencies": {"Center": 0}}, "all zero"),
        ({"class_frequencies": {"Center+Loc": 1}}, "not a wafer type of this target"),
        ({"target": "multilabel", "class_frequencies": {"Center+Donut": 1}}, "not a wafer type"),
        ({"num_wafers": 0}, "num_wafers=0"),
        ({"num_wafers": 2.5}, "a whole number"),
        ({"seed": -1}, "seed=-1"),
        ({"wafers_per_lot": 0}, "wafers_per_lot=0"),
        ({"lots_per_batch": 0}, "lots_per_batch=0"),
        ({"random_defects": (90, 10)}, "low and high"),
        ({"random_defects": 10}, "two positive numbers"),
        ({"texture": -0.1}, "texture=-0.1"),
        ({"pattern_density": 0}, "above 0"),
        ({"lot_similarity": 1.1}, "lot_similarity=1.1"),
        ({"shape": (10, 30)}, "25 to 175"),
        ({"shape": 30}, "25 to 175"),
    ],
)
def test_a_bad_parameter_is_the_users_mistake(parameters, message):
    with pytest.raises(UserError) as error:
        Simulator(**parameters)
    assert message in str(error.value)
