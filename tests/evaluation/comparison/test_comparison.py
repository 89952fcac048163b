"""Comparisons of hand-made answers, against scipy and cases worked by hand."""

import csv
import io

import numpy as np
import pytest
from scipy.stats import binomtest

from wafer_lab.errors import UserError
from wafer_lab.evaluation.comparison import factors, tables
from wafer_lab.evaluation.comparison.comparison import Answers, compare, main_effects
from wafer_lab.evaluation.comparison.significance import estimate, exactly_right, holm, mcnemar, merged, two_sided
from wafer_lab.evaluation.views import Wafers

NAMES = ("Donut", "Loc", "none")


def shared(rows=300, seed=0, lot=None, target=None):
    """The test wafers of some runs."""
    target = np.random.default_rng(seed).integers(0, 3, rows) if target is None else target
    kind = "multiclass" if target.ndim == 1 else "multilabel"
    return Wafers(np.arange(len(target)), target, np.zeros((len(target), 1, 3), np.float32), NAMES, kind, lot)


def answers(test, right, name="run", seed=0, val=None, **levels):
    """A run that is right where `right` says so, else one class off."""
    decisions = np.where(right, test.target, (test.target + 1) % 3)
    return Answers(name, levels, seed, np.full((len(test), 3), 0.1) + 0.7 * np.eye(3)[decisions], decisions, val or {})


def flawed(random, rows, share):
    return random.random(rows) >= share


@pytest.mark.parametrize(
    ("gained", "lost"), [(0, 0), (1, 0), (5, 5), (3, 11), (11, 3), (40, 70), (700, 800), (0, 1200)]
)
def test_mcnemar_is_the_binomial_test(gained, lost):
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_merged_p_values():
    assert merged([0.03]) == 0.03
    assert merged([0.01, 0.03]) == pytest.approx(0.04)
    assert merged([0.9, 0.8]) == 1.0


def test_the_p_value_agrees_with_its_interval():
    random = np.random.default_rng(0)
    for shift in (0.0, 1.5, 1.9, 2.0, 2.1, 4.0):
        draws = random.normal(shift, 1, 4000)
        _, low, _ = estimate(shift, draws)
        assert (two_sided(draws) < 0.05) == (low > 0)
    assert two_sided(np.zeros(100)) == 1.0
    assert two_sided(np.array([1.0, np.nan, 2.0])) == pytest.approx(2 / 3)


def test_a_wafer_is_right_when_all_its_labels_are():
    assert exactly_right(np.array([0, 1]), np.array([0, 2])).tolist() == [True, False]
    assert exactly_right(np.array([[0, 1], [1, 1]]), np.array([[0, 1], [1, 0]])).tolist() == [True, False]


def test_a_difference_by_hand():
    """100 wafers: 10 only ours gets right, 2 only the baseline, so accuracy differs by 0.08."""
    test = shared(100)
    ours, theirs = np.ones(100, bool), np.ones(100, bool)
    theirs[:10] = ours[10:12] = False
    found = compare(
        [answers(test, theirs, "old", loss="a"), answers(test, ours, "new", loss="b")],
        test,
        score="accuracy",
        baseline="loss=a",
    )
    (only,) = found.differences
    assert (found.baseline, only.setting) == ("loss=a", "loss=b")
    assert only.difference == pytest.approx(0.08)
    assert (only.gained, only.lost, only.pairs) == (10, 2, 1)
    assert only.p_mcnemar == pytest.approx(binomtest(2, 12).pvalue)
    # the difference is a mean of 100 numbers, ten 1 and two -1
    deviation = np.std(np.repeat([1, -1, 0], [10, 2, 88])) / 10
    assert (only.high - only.low) / (2 * 1.96) == pytest.approx(deviation, rel=0.1)
    assert [s.name for s in found.settings] == ["loss=b", "loss=a"]
    assert only.adjusted_bootstrap == pytest.approx(max(2 * min(only.p_bootstrap, only.p_mcnemar), only.p_bootstrap))


def test_pairing_narrows_the_interval_of_runs_that_err_alike():
    test, random = shared(500), np.random.default_rng(1)
    base = flawed(random, 500, 0.2)
    other = base ^ (random.random(500) < 0.02)
    found = compare([answers(test, base, m="a"), answers(test, other, m="b")], test, baseline="m=a")
    unpaired = np.hypot(*(s.high - s.low for s in found.settings))
    assert found.differences[0].high - found.differences[0].low < unpaired / 2


def test_whole_lots_widen_the_interval():
    random = np.random.default_rng(2)
    lots = np.repeat([f"L{k}" for k in range(40)], 25)
    base, by_lot = np.ones(1000, bool), np.repeat(random.random(40) < 0.8, 25)
    alone, whole = shared(1000), shared(1000, lot=lots)
    runs = [answers(alone, base, m="a"), answers(alone, by_lot, m="b")]
    single, together = (compare(runs, test, score="accuracy", baseline="m=a") for test in (alone, whole))
    widths = [c.differences[0].high - c.differences[0].low for c in (single, together)]
    assert widths[1] > 3 * widths[0]
    assert (single.lots, together.lots) == (None, 40)
    assert "in 40 whole lots" in tables.reading(together)[0]


def test_lots_are_said_only_where_they_are_drawn():
    """Of few lots wafers are drawn; wafers of no known lot are lots of their own."""
    right, lots = np.arange(100) < 80, np.repeat(["A", "B", "C", ""], 25)
    for lot, drawn in ((lots[:75].repeat(2)[:100], None), (lots, 28), (np.full(100, ""), None)):
        test = shared(100, lot=lot)
        found = compare([answers(test, right, m="a"), answers(test, ~right, m="b")], test, baseline="m=a")
        assert found.lots == drawn
        text = tables.markdown(found)
        assert ("whole lots" in text) == ("of one lot" in text) == (drawn is not None)


def test_no_false_claims_where_nothing_differs():
    """Three equally good models on fresh wafers, again and again: any adjusted p below 0.05 is a false claim."""
    random, claims, rounds = np.random.default_rng(3), [], 60
    for _ in range(rounds):
        test = shared(200, seed=int(random.integers(1 << 30)))
        runs = [answers(test, flawed(random, 200, 0.15), m=level) for level in "abc"]
        found = compare(runs, test, baseline="m=a", resamples=300, seed=int(random.integers(1 << 30)))
        claims.append(min(min(d.adjusted_bootstrap, d.adjusted_mcnemar) for d in found.differences) < 0.05)
    assert np.mean(claims) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / rounds)


def test_a_real_difference_is_found_among_many_settings():
    """Holm's correction over 2 x 11 tests needs smaller p-values than 100 draws can give."""
    test, random = shared(400), np.random.default_rng(4)
    base = flawed(random, 400, 0.1)
    runs = [answers(test, base, m=str(k)) for k in range(11)] + [answers(test, flawed(random, 400, 0.4), m="bad")]
    found = compare(runs, test, score="accuracy", baseline="m=0", resamples=100)
    assert found.resamples > 22 * 2 / 0.05
    bad = next(d for d in found.differences if d.setting == "m=bad")
    assert bad.adjusted_bootstrap < 0.05
    assert tables.verdict(bad, lower_is_better=False) == "worse"
    assert {tables.verdict(d, False) for d in found.differences if d is not bad} == {"not told apart"}


def test_seeds_are_one_setting_and_their_spread_is_said():
    test, random = shared(300), np.random.default_rng(5)
    shares = {"a": (0.05, 0.3), "b": (0.06, 0.27)}
    runs = [answers(test, flawed(random, 300, s), f"{m}{k}", k, m=m) for m in "ab" for k, s in enumerate(shares[m])]
    found = compare(runs, test, score="accuracy", baseline="a0")
    ours = {s.name: s for s in found.settings}
    assert found.baseline == "m=a"
    assert ours["m=a"].seeds == (0, 1)
    accuracy = [exactly_right(run.decisions, test.target).mean() for run in runs]
    assert ours["m=a"].scores == pytest.approx(accuracy[:2])
    assert ours["m=b"].spread == pytest.approx(np.std(accuracy[2:], ddof=1))
    (only,) = found.differences
    assert only.difference == pytest.approx(np.mean(accuracy[2:]) - np.mean(accuracy[:2]))
    assert only.pairs == 2, "seed 0 with seed 0, seed 1 with seed 1"
    right = [exactly_right(run.decisions, test.target) for run in runs]
    flips = [(int((b & ~a).sum()), int((a & ~b).sum())) for a, b in zip(right[:2], right[2:], strict=True)]
    expected = 2 * np.mean([binomtest(g, g + n).pvalue for g, n in flips])
    assert only.p_mcnemar == pytest.approx(min(1, expected))
    assert only.within_seeds
    assert "within seed spread" in tables.console(found)
    assert "other seeds may reverse it" in tables.console(found)


def test_other_seeds_are_paired_all_with_all():
    test = shared(50)
    runs = [answers(test, np.ones(50, bool), str(k), k, m="a") for k in (0, 1)]
    runs += [answers(test, np.ones(50, bool), str(k), k, m="b") for k in (1, 2, 3)]
    assert compare(runs, test, baseline="m=a").differences[0].pairs == 6


@pytest.mark.parametrize(("score", "best"), [("accuracy", "m=a"), ("escape_rate", "m=b")])
def test_the_baseline_is_the_best_on_val_and_not_on_test(score, best):
    test = shared(100)
    perfect, poor = np.ones(100, bool), np.arange(100) > 40
    runs = [
        answers(test, poor, m="a", val={"accuracy": 0.9, "escape_rate": 0.3}),
        answers(test, perfect, m="b", val={"accuracy": 0.8, "escape_rate": 0.2}),
    ]
    found = compare(runs, test, score=score)
    assert (found.baseline, found.baseline_from_val) == (best, True)
    assert found.settings[0].name == "m=b", "best first, whichever way the score goes"
    assert found.lower_is_better == (score == "escape_rate")


def test_multilabel_runs_compare_by_exact_match():
    random = np.random.default_rng(6)
    target = (random.random((200, 3)) < 0.4).astype(np.int8)
    test = shared(target=target)
    better = target.copy()
    worse = target ^ (random.random(target.shape) < 0.1)
    runs = [Answers(m, {"m": m}, 0, d * 0.8 + 0.1, d.astype(np.int8), {}) for m, d in (("a", better), ("b", worse))]
    found = compare(runs, test, score="exact_match", baseline="m=a", cost=(10.0, 1.0))
    lost = int((worse != target).any(axis=1).sum())
    assert found.differences[0].difference == pytest.approx(-lost / 200)
    assert (found.differences[0].gained, found.differences[0].lost) == (0, lost)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"score": "f1_makro"}, "f1_makro.*f1_macro"),
        ({"baseline": "m=c"}, "none of the settings.*m=a; m=b"),
        ({"baseline": "m="}, "fits 2 settings"),
        ({}, "--baseline"),
    ],
)
def test_what_cannot_be_compared_is_said(options, said):
    test = shared(50)
    runs = [answers(test, np.ones(50, bool), m=m) for m in "ab"]
    with pytest.raises(UserError, match=said):
        compare(runs, test, **options)


@pytest.mark.parametrize("score", ["f1/none", "recall/none", "false_alarm_rate"])
def test_a_score_of_no_test_wafer_is_refused(score):
    test = shared(target=np.arange(60) % 2)  # no wafer is none
    runs = [answers(test, np.ones(60, bool), m=m) for m in "ab"]
    with pytest.raises(UserError, match=f"no test wafer is of the kind that {score} is about"):
        compare(runs, test, score=score, baseline="m=a")


def test_main_effects_of_a_grid_by_hand():
    grid = [{"model": m, "loss": n} for m in ("small", "big") for n in ("ce", "focal")]
    scores = [0.80, 0.84, 0.90, 0.92]
    draws = np.array(scores)[:, None] + np.linspace(-0.01, 0.01, 101)  # all runs move together
    effects = {(e.factor, e.level): e for e in main_effects(grid, scores, draws)}
    assert list(effects) == [("model", "small"), ("model", "big"), ("loss", "ce"), ("loss", "focal")]
    assert effects["model", "small"].mean == pytest.approx(0.82)
    assert effects["model", "small"].difference is None
    big, focal = effects["model", "big"], effects["loss", "focal"]
    assert (big.mean, big.difference, big.cells, big.runs) == (pytest.approx(0.91), pytest.approx(0.09), 2, 2)
    assert focal.difference == pytest.approx(0.03)
    assert focal.high - focal.low == pytest.approx(0.019)
    assert focal.difference_high - focal.difference_low == pytest.approx(0, abs=1e-9), "paired"


def test_main_effects_use_only_cells_with_both_levels():
    """Without the good cell big + ce the raw means mislead; the balanced difference does not."""
    grid = [{"model": m, "loss": n} for m, n in (("small", "ce"), ("small", "focal"), ("big", "focal"))]
    grid.append(dict(grid[1]))  # a second seed of small + focal
    effects = {(e.factor, e.level): e for e in main_effects(grid, [0.8, 0.5, 0.6, 0.52], np.zeros((4, 10)))}
    big = effects["model", "big"]
    assert big.mean < effects["model", "small"].mean
    assert (big.difference, big.cells) == (pytest.approx(0.6 - 0.51), 1)
    assert effects["model", "small"].runs == 3
    alone = [{"model": "a", "loss": "x"}, {"model": "b", "loss": "y"}]
    assert [e.difference for e in main_effects(alone, [0.1, 0.2], np.zeros((2, 10)))] == [None] * 4
    assert main_effects([{"model": "a"}, {"model": "b"}], [0.1, 0.2], np.zeros((2, 10))) == ()


def test_the_tables_hold_what_was_found():
    test, random = shared(200), np.random.default_rng(7)
    runs = [
        answers(test, flawed(random, 200, share), f"{m}{n}", m=m, n=n, val={"f1_macro": share})
        for share, m, n in ((0.1, "a", "x"), (0.2, "a", "y|z"), (0.1, "b", "x"), (0.3, "b", "y|z"))
    ]
    found = compare(runs, test)
    rows = list(csv.DictReader(io.StringIO(tables.settings_csv(found))))
    assert [float(row["mean"]) for row in rows] == [s.mean for s in found.settings]
    assert [row["setting"] for row in rows if row["baseline"] == "True"] == ["m=b n=y|z"]
    assert {row["n"] for row in rows} == {"x", "y|z"}
    by_name = {d.setting: d for d in found.differences}
    for row in rows:
        if row["setting"] in by_name:
            assert float(row["adjusted_mcnemar"]) == by_name[row["setting"]].adjusted_mcnemar
            assert float(row["difference_low"]) == by_name[row["setting"]].low
    effects = list(csv.DictReader(io.StringIO(tables.effects_csv(found))))
    assert [row["level"] for row in effects] == ["a", "b", "x", "y|z"]
    text = tables.markdown(found, ["a note"], ["comparison.png"])
    assert "Baseline: `m=b n=y|z` (the best on val, 0.3000)" in text
    assert "not other training seeds" in text
    assert "- a note" in text
    assert "![comparison.png](comparison.png)" in text
    for table in text.split("\n\n"):
        widths = {line.replace("\\|", "").count("|") for line in table.splitlines() if line.startswith("|")}
        assert len(widths) <= 1, "every row of a table has as many cells as its heading"


def config(run=0, **changes):
    """A resolved config in the shape of a real one."""
    loss = {"_target_": "wafer_lab.losses.modules.CrossEntropyLoss", "label_smoothing": 0.0}
    focal = {"_target_": "wafer_lab.losses.modules.FocalLoss", "gamma": changes.get("gamma", 2.0)}
    seed, encoding = changes.get("seed", 0), changes.get("encoding", "one_hot")
    channels = {"one_hot": 3, "grey": 1}[encoding]
    callbacks = {"best": {"_target_": "a.Best", "dirpath": f"/runs/{run}/checkpoints"}}
    if changes.get("ema"):
        callbacks["ema"] = {"_target_": "a.EMA", "decay": 0.99}
    return {
        "name": f"n{run}",
        "seed": seed,
        "paths": {"run": f"/runs/{run}", "cache": f"/{run}/cache"},
        "data": {"encoding": encoding, "in_channels": channels, "run_seed": seed, "path": f"{run}.pkl"},
        "task": {"seed": seed},
        "model": {"_target_": "a.Net", "in_channels": channels, "attention": changes.get("attention")},
        "loss": focal if changes.get("focal") else loss,
        "imbalance": {"sampler": changes.get("sampler", "none"), "class_weights": changes.get("weights", "none")},
        "callbacks": callbacks,
        "tracking": {"uri": str(run)},
    }


def named(*changes):
    return [factors.name(s) for s in factors.settings([config(run, **c) for run, c in enumerate(changes)])]


def test_runs_that_differ_in_seed_and_place_only_are_one_setting():
    assert named({"seed": 0}, {"seed": 1}, {"seed": 2}) == ["all runs"] * 3


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        (({}, {"attention": "cbam"}), ["model.attention=none", "model.attention=cbam"]),
        (({}, {"encoding": "grey"}), ["data.encoding=one_hot", "data.encoding=grey"]),
        (({}, {"focal": True}), ["loss=CrossEntropyLoss", "loss=FocalLoss"]),
        (
            ({}, {"focal": True}, {"focal": True, "gamma": 1}),
            ["loss=CrossEntropyLoss", "loss=FocalLoss(gamma=2)", "loss=FocalLoss(gamma=1)"],
        ),
        (({}, {"ema": True}), ["callbacks.ema=none", "callbacks.ema=EMA"]),
        (
            ({}, {"sampler": "balanced"}, {"weights": "balanced"}),
            [
                "imbalance(sampler=none, class_weights=none)",
                "imbalance(sampler=balanced)",
                "imbalance(class_weights=balanced)",
            ],
        ),
    ],
)
def test_a_setting_is_named_by_the_choices_that_differ(changes, names):
    assert named(*changes) == names


def test_crossed_choices_are_factors_of_their_own():
    grid = [config(k, attention=a, sampler=s, weights=w) for k, (a, s, w) in enumerate(
        (a, s, w) for a in ("se", "eca") for s in ("none", "sqrt") for w in ("none", "balanced")
    )]  # fmt: skip
    assert list(factors.settings(grid)[0]) == ["model.attention", "imbalance.sampler", "imbalance.class_weights"]


def test_long_values_stay_apart():
    one, two = config(), config(1)
    one["data"]["augment"] = [{"p": k} for k in range(50)]
    two["data"]["augment"] = [{"p": k} for k in range(51)]
    first, second = (factors.name(s) for s in factors.settings([one, two]))
    assert first != second
    assert len(first) < 80
