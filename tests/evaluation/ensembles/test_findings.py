"""What an ensemble gains, on members made by hand; scores against scikit-learn, diversity against scipy."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from sklearn.metrics import f1_score

from wafer_lab.evaluation.ensembles import report
from wafer_lab.evaluation.ensembles.combination import aligned, calibrated, ensemble_of
from wafer_lab.evaluation.ensembles.diversity import diversity, js_divergence
from wafer_lab.evaluation.ensembles.findings import find
from wafer_lab.evaluation.ensembles.members import Members, subsets
from wafer_lab.evaluation.judgement import judge_predictions
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.evaluation.views import wafers

PLAIN = Evaluation(calibration="none", resamples=100)


@pytest.fixture
def members(judged_table):
    """Members that are right, and wrong, independently of each other: members(["a", "a", "b"], settings)."""

    def made(groups, settings=PLAIN, kind="multiclass", noise=1.0):
        first = judged_table(rows=600, views=1, target_kind=kind)
        random = np.random.default_rng(5)
        tables = [
            replace(first, logits=first.logits + (12 * noise * random.normal(size=first.logits.shape)).astype("f4"))
            for _ in groups
        ]
        tables = [calibrated(table, settings) for table in aligned(tables, settings)]
        names = tuple(f"m{k}" for k in range(len(groups)))
        return Members(names, tuple(groups), tuple(tables), "probabilities", settings)

    return made


def test_the_curve_is_of_all_subsets_and_their_mean_answer(members):
    made = members(["a"] * 4)
    found = find(made, 20)
    assert [(one.size, one.subsets, one.possible) for one in found.sizes] == [
        (1, 4, 4),
        (2, 6, 6),
        (3, 4, 4),
        (4, 1, 1),
    ]
    tests = [wafers(table, "test") for table in made.tables]
    truth = tests[0].target

    def f1(chosen):
        said = np.mean([softmax(tests[k].logits[:, 0].astype(float), axis=1) for k in chosen], axis=0)
        return f1_score(truth, said.argmax(1), average="macro")

    assert found.sizes[0].mean == pytest.approx(np.mean([f1([k]) for k in range(4)]))
    assert found.sizes[0].worst == pytest.approx(min(f1([k]) for k in range(4)))
    assert found.sizes[3].mean == pytest.approx(f1(range(4)))
    assert found.sizes[0].mean < found.sizes[1].mean < found.sizes[3].mean
    assert found.sizes[3].low < found.sizes[3].mean < found.sizes[3].high
    assert found.gains[1].gain == pytest.approx(f1(range(4)) - f1([0, 2, 3]))
    assert {one.verdict for one in found.contrasts} == {"better"}
    best = max(range(4), key=lambda k: made.answer((k,)).val)
    assert found.contrasts[0].against == f"best member on val (m{best})"
    assert found.contrasts[0].difference == pytest.approx(f1(range(4)) - f1([best]))
    assert found.contrasts[1].difference == pytest.approx(f1(range(4)) - found.sizes[0].mean)


def test_the_whole_ensemble_is_judged_as_any_model_is(members):
    settings = Evaluation(decision="f1", resamples=400)
    made = members(["a"] * 2, settings)
    judged = judge_predictions(ensemble_of(made.tables, "probabilities"), settings, alternatives=False)
    answer = made.answer((0, 1))
    assert answer.score == pytest.approx(judged.scores["test/f1_macro"])
    assert answer.val == pytest.approx(judged.scores["val/f1_macro"])
    assert np.quantile(answer.draws, [0.025, 0.975]) == pytest.approx(judged.intervals["test/f1_macro"])


def test_groups_are_compared_at_equal_size_and_mixed(members):
    found = find(members(["scratch"] * 2 + ["simclr"] * 2), 20)
    assert [(one.group, one.size) for one in found.sizes] == [
        ("scratch", 1), ("scratch", 2), ("simclr", 1), ("simclr", 2), ("mixed", 2), ("mixed", 3), ("mixed", 4),
    ]  # fmt: skip
    assert next(one.possible for one in found.sizes if (one.group, one.size) == ("mixed", 2)) == 4
    pairs = {(one.what, one.against) for one in found.contrasts}
    assert {
        ("ensemble of 2 simclr", "ensemble of 2 scratch"),
        ("ensemble of 2 mixed", "ensemble of 2 scratch"),
        ("ensemble of 4 mixed", "mean member"),
        ("mean simclr member", "mean scratch member"),
    } < pairs
    text = report.report("run", found, ["figure.png"], links=True)
    assert "| [m0](m0/report.md)" in text
    flat = report.flat(found)
    assert f"| mixed | 4 | {flat['ensemble/mixed/4/f1_macro']:.4f} [" in text
    assert len(report.contrasts_csv(found).splitlines()) == 1 + len(found.contrasts)
    assert len(report.members_csv(found).splitlines()) == 5
    assert len(report.diversity_csv(found).splitlines()) == 7


def test_equal_members_gain_nothing_and_are_not_told_apart(members):
    made = members(["a"] * 3, noise=0.0)
    found = find(made, 20)
    assert {one.verdict for one in found.contrasts} == {"not told apart"}
    assert all(abs(gain.gain) < 1e-9 for gain in found.gains)
    assert all(pair.disagreement == 0 and pair.js < 1e-9 for pair in found.pairs.values())


def test_labels_in_place_of_classes(members):
    found = find(members(["a"] * 3, kind="multilabel"), 20)
    assert found.sizes[0].mean < found.sizes[2].mean
    assert "exact match" in report.report("run", found, [], links=False)


def test_subsets_are_drawn_where_there_are_too_many():
    some, possible = subsets(["a"] * 40, tuple(range(40)), 20, 7, seed=0)
    assert (len(some), len(set(some)), possible > 1e11) == (7, 7, True)
    again, _ = subsets(["a"] * 40, tuple(range(40)), 20, 7, seed=0)
    assert some == again
    uneven, _ = subsets(["a"] * 4 + ["b"], tuple(range(5)), 4, 99, seed=0)
    assert all(4 in one for one in uneven)  # b has one member to give, and gives it


def test_mixtures_are_those_of_a_search_over_all_subsets():
    random = np.random.default_rng(0)
    for _ in range(60):
        groups = [str(group) for group in random.integers(0, 4, random.integers(1, 9))]
        among, size = tuple(range(len(groups))), int(random.integers(1, len(groups) + 1))

        def is_even(subset, groups=groups):
            taken = {group: sum(groups[k] == group for k in subset) for group in groups}
            return all(taken[group] >= min(max(taken.values()) - 1, groups.count(group)) for group in groups)

        wanted = [subset for subset in combinations(among, size) if is_even(subset)]
        assert subsets(groups, among, size, 1000, seed=0) == (wanted, len(wanted))
        drawn, possible = subsets(groups, among, size, max(1, len(wanted) // 2), seed=0)
        assert set(drawn) <= set(wanted)
        assert (len(drawn), possible) == (max(1, len(wanted) // 2), len(wanted))


def test_diversity_by_hand():
    right = (np.array([1, 1, 1, 0, 0, 0], bool), np.array([1, 1, 0, 1, 0, 0], bool))
    decisions = (np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 2, 0, 1, 2]))
    p, q = np.random.default_rng(0).dirichlet([1, 1, 1], (2, 6))
    found = diversity(decisions, right, (p, q), "multiclass")
    assert found.disagreement == pytest.approx(3 / 6)
    assert found.correlation == pytest.approx(np.corrcoef(*right)[0, 1])
    assert found.q == pytest.approx((2 * 2 - 1 * 1) / (2 * 2 + 1 * 1))
    assert found.js == pytest.approx(np.mean(jensenshannon(p, q, axis=1) ** 2))
    of_labels = [jensenshannon([a, 1 - a], [b, 1 - b]) ** 2 for a, b in zip(p[0], q[0], strict=True)]
    assert js_divergence(p[:1], q[:1], "multilabel") == pytest.approx([np.mean(of_labels)])
    assert js_divergence(np.eye(2), np.eye(2)[::-1], "multiclass") == pytest.approx(np.full(2, np.log(2)))
