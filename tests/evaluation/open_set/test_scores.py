"""Scores of unknown wafers against scikit-learn, loops and the papers' formulas."""

import csv

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.neighbors import NearestNeighbors

from wafer_lab.evaluation.open_set.findings import Finding, as_csv, flat, headline, means, report
from wafer_lab.evaluation.open_set.scores import (
    auroc,
    detection,
    energy,
    fpr_at_tpr,
    knn_distances,
    max_probability,
    resampled,
    unknown_scores,
)
from wafer_lab.evaluation.views import Wafers

RANDOM = np.random.default_rng(0)


def scored(kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of known and unknown wafers: smooth, or on a few values so that most are tied."""
    random = np.random.default_rng(seed)
    known, unknown = random.normal(0, 1, 300), random.normal(1, 1.5, 70)
    return (known.round(), unknown.round()) if kind == "tied" else (known, unknown)


def pair_by_pair(known: np.ndarray, unknown: np.ndarray) -> float:
    higher = (unknown[:, None] > known[None]).mean()
    return float(higher + (unknown[:, None] == known[None]).mean() / 2)


def threshold_by_threshold(known: np.ndarray, unknown: np.ndarray, tpr: float) -> float:
    """The lowest threshold, among the known scores, that lets the wanted share of known wafers pass."""
    for threshold in np.sort(known):
        if (known <= threshold).mean() >= tpr - 1e-12:
            return float((unknown <= threshold).mean())
    raise AssertionError("no threshold lets all pass")


@pytest.mark.parametrize("kind", ["smooth", "tied"])
def test_auroc_is_mann_whitney_and_scikit_learns(kind: str) -> None:
    known, unknown = scored(kind)
    strange = np.r_[np.zeros(len(known)), np.ones(len(unknown))]
    assert auroc(known, unknown) == pytest.approx(pair_by_pair(known, unknown))
    assert auroc(known, unknown) == pytest.approx(roc_auc_score(strange, np.r_[known, unknown]))


@pytest.mark.parametrize("kind", ["smooth", "tied"])
@pytest.mark.parametrize("tpr", [0.5, 0.8, 0.95, 1.0])
def test_fpr_is_at_the_threshold_that_the_known_wafers_set(kind: str, tpr: float) -> None:
    known, unknown = scored(kind)
    assert fpr_at_tpr(known, unknown, tpr) == pytest.approx(threshold_by_threshold(known, unknown, tpr))


def test_fpr_is_scikit_learns_curve_with_known_as_positive() -> None:
    known, unknown = scored("smooth")
    accepted = np.r_[np.ones(len(known)), np.zeros(len(unknown))]
    fpr, tpr, _ = roc_curve(accepted, -np.r_[known, unknown], drop_intermediate=False)
    assert fpr_at_tpr(known, unknown) == pytest.approx(fpr[np.argmax(tpr >= 0.95 - 1e-12)])


def test_the_ends() -> None:
    low, high = np.arange(20.0), np.arange(100.0, 107)
    assert (auroc(low, high), fpr_at_tpr(low, high)) == (1, 0)
    assert (auroc(high, low), fpr_at_tpr(high, low)) == (0, 1)
    assert (auroc(np.ones(9), np.ones(4)), fpr_at_tpr(np.ones(9), np.ones(4))) == (0.5, 1)
    with pytest.raises(ValueError, match="0 unknown"):
        auroc(low, high[:0])


def test_nineteen_of_twenty_known_wafers_are_95_percent() -> None:
    """The twentieth known wafer lies beyond the unknown one; rounding must not ask for it."""
    known = np.r_[np.arange(19.0), 50]
    assert fpr_at_tpr(known, np.array([30.0])) == 0
    assert fpr_at_tpr(known, np.array([30.0]), 0.96) == 1


@pytest.mark.parametrize("kind", ["smooth", "tied"])
def test_draws_are_draws_of_wafers(kind: str) -> None:
    """The weighted bootstrap has the mean and spread of one that draws the wafers themselves."""
    known, unknown = scored(kind)
    draws = resampled(known, unknown, 4000, seed=1)
    random = np.random.default_rng(2)
    plain = [(random.choice(known, len(known)), random.choice(unknown, len(unknown))) for _ in range(500)]
    references = {
        "auroc": np.array([pair_by_pair(*pair) for pair in plain]),
        "fpr": np.array([threshold_by_threshold(*pair, 0.95) for pair in plain]),
    }
    for name, reference in references.items():
        assert draws[name].mean() == pytest.approx(reference.mean(), abs=4 * reference.std() / np.sqrt(500))
        assert draws[name].std() == pytest.approx(reference.std(), rel=0.15)


def test_whole_lots_are_drawn_where_there_are_enough() -> None:
    """Ten copies of every wafer are a lot: drawn whole, the spread is that of the wafers, not of ten times as many."""
    known, unknown = scored("smooth")
    lots = [np.repeat([f"lot {i}" for i in range(len(part))], 10) for part in (known, unknown)]
    many = [np.repeat(part, 10) for part in (known, unknown)]
    once = resampled(known, unknown, 1000)
    by_lot = resampled(*many, 1000, known_lot=lots[0], unknown_lot=lots[1])
    by_wafer = resampled(*many, 1000)
    for name, draws in once.items():
        assert by_lot[name].mean() == pytest.approx(draws.mean(), abs=0.2 * draws.std())
        assert by_lot[name].std() == pytest.approx(draws.std(), rel=0.1)
        assert by_wafer[name].std() < 0.6 * draws.std()


def test_too_few_lots_are_not_drawn_and_a_wafer_without_one_is_its_own() -> None:
    known, unknown = scored("smooth")
    few = np.array([f"lot {i % 19}" for i in range(len(known))])
    plain = resampled(known, unknown, 50)
    assert np.array_equal(resampled(known, unknown, 50, known_lot=few)["auroc"], plain["auroc"])
    nameless = np.full(len(known), "")
    drawn = resampled(known, unknown, 1000, known_lot=nameless)["auroc"]
    assert drawn.std() == pytest.approx(resampled(known, unknown, 1000, seed=1)["auroc"].std(), rel=0.1)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Unit normals 1.2 apart: AUROC is Phi(1.2 / sqrt 2) = 0.80193."""
    random = np.random.default_rng(3)
    covered = 0
    for seed in range(200):
        _, bounds = detection(random.normal(0, 1, 150), random.normal(1.2, 1, 40), resamples=400, seed=seed)
        covered += bounds["auroc"][0] <= 0.80193 <= bounds["auroc"][1]
    assert 0.89 <= covered / 200 <= 0.99


def test_detection_is_repeatable_and_brackets_its_values() -> None:
    known, unknown = scored("smooth")
    values, bounds = detection(known, unknown)
    assert (values, bounds) == detection(known, unknown)
    for name, value in values.items():
        assert bounds[name][0] < value < bounds[name][1]


def test_max_probability_by_softmax() -> None:
    z = RANDOM.normal(0, 3, (50, 4, 9))
    p = np.exp(z) / np.exp(z).sum(2, keepdims=True)
    assert max_probability(z, "multiclass") == pytest.approx(1 - p.mean(1).max(1))


def test_max_probability_tells_very_confident_wafers_apart() -> None:
    z = np.zeros((2, 1, 3))
    z[:, 0, 0] = 50, 60
    found = max_probability(z, "multiclass")
    assert found == pytest.approx([2 * np.exp(-50), 2 * np.exp(-60)], rel=1e-6)


def test_multilabel_max_probability_is_that_of_the_best_combination() -> None:
    z = RANDOM.normal(0, 2, (20, 1, 4))
    p = 1 / (1 + np.exp(-z[:, 0]))
    combinations = np.array([[(i >> k) & 1 for k in range(4)] for i in range(16)])
    joint = np.where(combinations[None] == 1, p[:, None], 1 - p[:, None]).prod(2)
    assert max_probability(z, "multilabel") == pytest.approx(1 - joint.max(1))


def test_a_wafer_without_a_label_is_not_unknown_for_that() -> None:
    surely_nothing, undecided = np.full((1, 1, 5), -8.0), np.zeros((1, 1, 5))
    assert max_probability(surely_nothing, "multilabel") < 0.01 < max_probability(undecided, "multilabel")


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_energy_by_formula(temperature: float) -> None:
    z = RANDOM.normal(0, 3, (30, 2, 5))
    softmax = -temperature * np.log(np.exp(z / temperature).sum(2)).mean(1)
    joint = -temperature * np.log1p(np.exp(z / temperature)).sum(2).mean(1)
    assert energy(z, "multiclass", temperature) == pytest.approx(softmax)
    assert energy(z, "multilabel", temperature) == pytest.approx(joint)


def test_energy_survives_large_logits() -> None:
    z = np.full((1, 1, 3), 1e4)
    assert np.isfinite([energy(z, kind) for kind in ("multiclass", "multilabel")]).all()


def test_neighbours_are_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, queries = RANDOM.normal(size=(120, 16)), RANDOM.normal(size=(75, 16)) * 40
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (bank, queries)]
    reference = NearestNeighbors(n_neighbors=7, algorithm="brute").fit(unit[0]).kneighbors(unit[1])[0][:, -1]
    assert knn_distances(bank, queries, 7) == pytest.approx(reference, abs=1e-5)
    monkeypatch.setattr("wafer_lab.evaluation.open_set.scores._BLOCK", 120 * 8)  # in blocks of eight queries
    assert knn_distances(bank, queries, 7) == pytest.approx(reference, abs=1e-5)


def test_neighbours_of_the_bank_itself_and_of_a_small_bank() -> None:
    bank = RANDOM.normal(size=(6, 3))
    assert knn_distances(bank, bank, 1) == pytest.approx(np.zeros(6), abs=1e-3)
    assert np.array_equal(knn_distances(bank, bank, 50), knn_distances(bank, bank, 6))
    with pytest.raises(ValueError, match="neighbours"):
        knn_distances(bank[:0], bank)


def test_a_table_without_distances_offers_none() -> None:
    z = RANDOM.normal(size=(4, 1, 3)).astype(np.float32)
    table = Wafers(np.arange(4), np.zeros(4, np.int64), z, ("a", "b", "none"), "multiclass")
    assert set(unknown_scores(table)) == {"max_probability", "energy"}
    far = Wafers(
        np.arange(4), np.zeros(4, np.int64), z, ("a", "b", "none"), "multiclass", knn_distance=np.arange(4, dtype="f4")
    )
    assert unknown_scores(far)["knn_distance"].tolist() == [0, 1, 2, 3]


@pytest.fixture
def findings() -> list[Finding]:
    return [
        Finding.of(name, score, *scored("smooth", seed), resamples=200)
        for seed, name in enumerate(("Donut", "Loc"))
        for score in ("energy", "max_probability")
    ]


def test_means_are_over_the_classes(findings: list[Finding]) -> None:
    values = flat(findings)
    donut, loc = (values[f"unknown/energy/auroc/{name}"] for name in ("Donut", "Loc"))
    assert values["unknown/energy/auroc"] == pytest.approx((donut + loc) / 2)
    assert values["unknown/energy/auroc/sd"] == pytest.approx(abs(donut - loc) / np.sqrt(2))
    assert means(findings[:1])["energy"]["auroc"][1] == 0


def test_everything_is_told(findings: list[Finding]) -> None:
    lines = list(csv.DictReader(as_csv(findings).splitlines()))
    assert [(line["left_out"], line["score"]) for line in lines] == [(f.left_out, f.score) for f in findings]
    assert [float(line["fpr_at_95_tpr_high"]) for line in lines] == [f.fpr_interval[1] for f in findings]
    text = report("a run", findings)
    for finding in findings:
        assert f"{finding.auroc:.4f} [{finding.auroc_interval[0]:.4f}, {finding.auroc_interval[1]:.4f}]" in text
        assert f"{finding.fpr:.4f} [{finding.fpr_interval[0]:.4f}, {finding.fpr_interval[1]:.4f}]" in text
    assert len(headline(findings)) == 3


def test_the_report_says_what_was_drawn() -> None:
    known, unknown = scored("smooth")
    lots = {"known_lot": np.array([f"lot {i % 60}" for i in range(300)]), "unknown_lot": np.arange(70).astype(str)}
    by_lot = Finding.of("Edge Loc", "energy", known, unknown, 100, **lots)
    one_by_one = Finding.of("Donut", "energy", known, unknown, 100)
    assert (by_lot.known_drawn, by_lot.unknown_drawn) == ("lots", "lots")
    text = report("a run", [by_lot])
    assert "Known wafers are drawn as whole lots, unknown ones as whole lots." in text
    assert "too narrow" not in text
    assert "[Edge Loc](without_Edge%20Loc/report.md)" in text
    text = report("a run", [by_lot, one_by_one])
    assert "unknown ones as whole lots for Edge Loc and one by one for Donut." in text
    assert "too narrow" in text
