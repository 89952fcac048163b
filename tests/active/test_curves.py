import csv

import numpy as np
import pytest

from wafer_lab.active import curves
from wafer_lab.active.curves import Point

LABELS = [10, 20, 40]
# acquisition -> seed -> test score of each round
SCORES = {
    "hybrid": {3: [0.2, 0.5, 0.8], 4: [0.3, 0.6, 0.7], 5: [0.1, 0.2, 0.3]},
    "never": {3: [0.2, 0.2, 0.2], 4: [0.3, 0.3, 0.3], 5: [0.1, 0.1, 0.1]},
    "random": {3: [0.2, 0.3, 0.6], 4: [0.3, 0.3, 0.5], 5: [0.1, 0.1, 0.4]},
}


@pytest.fixture
def points():
    return [
        Point(name, seed, r, LABELS[r], score / 2, score)
        for name, seeds in SCORES.items()
        for seed, scores in seeds.items()
        for r, score in enumerate(scores)
    ]


def slow_area(scores):
    strips = [(b - a) * (x + y) / 2 for a, b, x, y in zip(LABELS, LABELS[1:], scores, scores[1:], strict=False)]
    return sum(strips) / 30


def test_what_labels_were_worth(points):
    found = curves.worth(curves.curves(points), 500, 0)
    areas = {name: [slow_area(scores) for scores in seeds.values()] for name, seeds in SCORES.items()}
    for name, one in found.items():
        assert one.area == pytest.approx(np.mean(areas[name]))
        assert one.over_random == pytest.approx(np.mean(areas[name]) - np.mean(areas["random"]))
        assert one.wins == sum(a > b for a, b in zip(areas[name], areas["random"], strict=True))
    # random ends at 0.5; hybrid goes from 0.4333 with 20 labels to 0.6 with 40
    assert found["hybrid"].needed == pytest.approx(20 + 20 * (0.5 - 1.3 / 3) / (0.6 - 1.3 / 3))
    assert (found["random"].needed, found["never"].needed) == (40, np.inf)
    assert found["hybrid"].final == pytest.approx(0.6)


def test_seeds_are_drawn_in_pairs(points):
    """Against all draws of 3 seeds of 3."""
    found = curves.worth(curves.curves(points), 20_000, 0)["hybrid"]
    leads = [slow_area(SCORES["hybrid"][s]) - slow_area(SCORES["random"][s]) for s in (3, 4, 5)]
    means = [np.mean([leads[i], leads[j], leads[k]]) for i in range(3) for j in range(3) for k in range(3)]
    assert found.over_random_interval == pytest.approx((min(means), max(means)))  # each has a chance of 1 in 27
    needed = []
    for drawn in np.ndindex(3, 3, 3):
        pick = {name: np.mean([SCORES[name][3 + k] for k in drawn], axis=0) for name in ("hybrid", "random")}
        above = np.flatnonzero(pick["hybrid"] >= pick["random"][-1])
        needed.append(np.inf if len(above) == 0 else LABELS[above[0]])
    assert found.needed_interval[1] == np.inf == max(needed)
    assert found.needed_interval[0] <= min(needed)


def test_one_seed_has_no_interval(points):
    found = curves.curves([point for point in points if point.seed == 3])
    worth = curves.worth(found, 100, 0)
    assert worth["hybrid"].area_interval is worth["hybrid"].needed_interval is None
    assert curves.band(found["hybrid"], 100, 0) is None
    assert "[" not in curves.report("run", found, worth, "f1_macro", figure=False).partition("## Mean")[0]


def test_rounds_that_a_seed_lacks_are_left_out(points):
    found = curves.curves([point for point in points if (point.seed, point.round) != (4, 2)])
    assert found["hybrid"].labels.tolist() == [10, 20]
    assert found["hybrid"].scores.tolist() == [[0.2, 0.5], [0.3, 0.6], [0.1, 0.2]]


def test_numbers_and_report(points):
    found = curves.curves(points)
    worth = curves.worth(found, 200, 0)
    flat = curves.flat(worth)
    assert flat["active/hybrid/final"] == pytest.approx(0.6)
    assert "active/never/labels_to_random_final" not in flat
    assert flat["active/hybrid/area/low"] <= flat["active/hybrid/area"] <= flat["active/hybrid/area/high"]
    text = curves.report("a run", found, worth, "f1_macro", figure=True)
    assert "Test macro F1 of models trained on 10 to 40 labels, 3 seeds." in text
    assert "(figures/active.png)" in text
    line = next(line for line in text.splitlines() if line.startswith("| never"))
    assert "0 of 3" in line
    assert "never [never, never]" in line
    rows = list(csv.DictReader(curves.as_csv(points, "f1_macro").splitlines()))
    assert rows[0] == {
        "acquisition": "hybrid", "seed": "3", "round": "0", "labels": "10",
        "val/f1_macro": "0.1", "test/f1_macro": "0.2",
    }  # fmt: skip
    low, high = curves.band(found["random"], 2000, 0)
    mean = found["random"].scores.mean(0)
    assert (low < mean).all()
    assert (mean < high).all()
