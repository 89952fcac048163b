import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, softmax

from wafer_lab.data.views import VIEWS
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictor.calibration import Calibration, fit_calibration
from wafer_lab.evaluation.predictor.decisions import Argmax, MinimumCost, RecallConstrained, Thresholds
from wafer_lab.evaluation.predictor.predictor import Predictor, calibrate, fit_predictor, fit_rule
from wafer_lab.evaluation.predictor.thresholds import fit_thresholds
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.evaluation.views import Wafers

NAMES = ("Center", "Loc", "Scratch", "none")
PRIOR = np.array([0.15, 0.1, 0.05, 0.7])


def simulated(rows=600, views=1, seed=0, names=NAMES, prior=PRIOR, lots=False):
    """Gaussian classes, their true log posteriors, made overconfident and noisy view by view."""
    random = np.random.default_rng(seed)
    target = random.choice(len(prior), rows, p=prior)
    features = 1.6 * np.eye(len(prior))[target] + random.normal(size=(rows, len(prior)))
    logits = 2 * (1.6 * features + np.log(prior))[:, None] + 0.3 * random.normal(size=(rows, views, len(prior)))
    lot = np.array([f"lot{i // 6}" if i % 10 else "" for i in range(rows)]) if lots else None
    return Wafers(np.arange(rows), target, logits.astype(np.float32), tuple(names), "multiclass", lot)


def labelled(rows=500, views=1, seed=0):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, 1, 3)) * 2 - 1
    target = (random.random((rows, 3)) < expit(logits[:, 0])).astype(np.int8)
    return Wafers(
        np.arange(rows), target, np.repeat(1.5 * logits, views, 1).astype(np.float32), ("a", "b", "c"), "multilabel"
    )


def settings(**values):
    return Evaluation(**({"max_escape_rate": 0.05} | values))


@pytest.mark.parametrize("make", [simulated, labelled])
@pytest.mark.parametrize("rule", ["argmax", "f1", "cost", "recall"])
@pytest.mark.parametrize("kind", ["none", "temperature", "vector"])
def test_every_choice_gives_a_predictor_that_survives_a_file(make, rule, kind, tmp_path):
    val = make(views=2)
    fitted = fit_predictor(val, settings(tta="hflip", calibration=kind, decision=rule))
    path = fitted.predictor.write(tmp_path / "deep" / "predictor.json")
    again = Predictor.read(path)
    assert again == fitted.predictor
    decided = again(val.logits)
    np.testing.assert_array_equal(decided, again.decision(again.probabilities(val.logits)))
    assert (decided.shape, decided.dtype) == (val.target.shape, val.target.dtype)
    assert (fitted.decisions.shape, fitted.decisions.dtype) == (val.target.shape, val.target.dtype)
    assert fitted.probabilities.shape == (len(val), len(val.class_names))
    assert (fitted.decisions == decided).mean() > 0.9
    assert [item.name for item in path.parent.iterdir()] == ["predictor.json"]
    assert max(map(len, path.read_text().splitlines())) < 200


def test_what_is_deployed_is_fitted_on_all_of_val_and_its_views():
    val = simulated(views=8, rows=1000)
    fitted = fit_predictor(val, settings(tta="d4"))
    whole = fit_calibration("temperature", val.logits, val.target, "multiclass")
    assert fitted.predictor.calibration == whole
    assert whole.temperature > 1.5
    np.testing.assert_allclose(
        fitted.predictor.probabilities(val.logits), softmax(val.logits / whole.temperature, axis=2).mean(1), rtol=1e-5
    )
    assert isinstance(fitted.predictor.decision, Argmax)


@pytest.mark.parametrize("rule", ["f1", "recall"])
@pytest.mark.parametrize("lots", [False, True])
def test_no_out_of_fold_value_comes_from_a_fit_that_saw_the_wafer(rule, lots):
    val = simulated(rows=900, lots=lots)
    chosen = settings(calibration="vector", decision=rule)
    before = calibrate(val, chosen)
    first = fit_rule(before, chosen)
    for poisoned in range(2):
        inside = before.fold == poisoned
        logits = val.logits.copy()
        logits[inside] = -3 * logits[inside]
        spoilt = replace(val, logits=logits)
        after = calibrate(spoilt, chosen)
        np.testing.assert_array_equal(after.fold, before.fold)
        second = fit_rule(after, chosen)
        # The poisoned fold is answered as by the fit that never saw it ...
        assert after.by_fold[poisoned] == before.by_fold[poisoned]
        expected = before.by_fold[poisoned].probabilities(logits[inside])
        np.testing.assert_array_equal(after.probabilities[inside], expected)
        restored = replace(after, val=val, probabilities=before.probabilities)
        np.testing.assert_array_equal(fit_rule(restored, chosen).decisions[inside], first.decisions[inside])
        # ... and spoils the answers to the others.
        assert (after.probabilities[~inside] != before.probabilities[~inside]).all()
        assert (second.decisions[~inside] != first.decisions[~inside]).any()


def test_folds_are_stratified_or_whole_lots():
    val = simulated(rows=700)
    fold = calibrate(val, settings()).fold
    counts = np.array([np.bincount(val.target[fold == k], minlength=4) for k in range(5)])
    assert (np.ptp(counts, axis=0) <= 1).all()
    assert fold.tolist() == calibrate(val, settings()).fold.tolist()
    assert fold.tolist() != calibrate(val, settings(seed=1)).fold.tolist()
    by_lot = simulated(rows=700, lots=True)
    fold = calibrate(by_lot, settings()).fold
    for name in set(by_lot.lot) - {""}:
        assert len(set(fold[by_lot.lot == name])) == 1
    assert len(set(fold[by_lot.lot == ""])) == 5
    counts = np.array([np.bincount(val.target[fold == k], minlength=4) for k in range(5)])
    assert (counts / counts.mean(0) > 0.7).all()
    one_lot = replace(val, lot=np.full(len(val), "a"))
    assert np.bincount(calibrate(one_lot, settings()).fold).tolist() == [140] * 5
    two_lots = replace(val, lot=np.where(np.arange(len(val)) < 300, "a", "b"))
    assert sorted(np.bincount(calibrate(two_lots, settings()).fold)) == [300, 400]


def test_f1_thresholds_are_the_mean_of_the_folds_and_worth_something():
    gains = []
    for seed in range(4):
        val, fresh = simulated(rows=1500, seed=seed), simulated(rows=20000, seed=100)
        shift = np.array([0, 0, 0, 3], dtype=np.float32)  # a model that says none too often
        val, fresh = replace(val, logits=val.logits + shift), replace(fresh, logits=fresh.logits + shift)
        chosen = settings(decision="f1", calibration="none")
        state = calibrate(val, chosen)
        fitted = fit_rule(state, chosen)
        logs = [
            np.log(fit_thresholds(state.probabilities[state.fold != k], val.target[state.fold != k])) for k in range(5)
        ]
        mean = np.exp(np.mean(logs, axis=0))
        assert fitted.predictor.decision.values == pytest.approx(mean / mean.sum())
        assert fitted.notes == ()
        decided = fitted.predictor(fresh.logits)
        plain = fresh.logits[:, 0].argmax(1)
        gains.append(macro_f1(fresh.target, decided) - macro_f1(fresh.target, plain))
        out_of_fold = macro_f1(val.target, fitted.decisions)
        assert out_of_fold == pytest.approx(macro_f1(fresh.target, decided), abs=0.06)
    assert min(gains) > 0.02


def macro_f1(target, decisions):
    hits = [
        2 * ((target == k) & (decisions == k)).sum() / ((target == k).sum() + (decisions == k).sum()) for k in range(4)
    ]
    return float(np.mean(hits))


def test_recall_keeps_the_escape_rate_on_fresh_wafers():
    escapes = []
    fresh = simulated(rows=20000, seed=999)
    defect = fresh.target != 3
    for seed in range(25):
        predictor = fit_predictor(simulated(rows=500, seed=seed), settings(decision="recall")).predictor
        assert isinstance(predictor.decision, RecallConstrained)
        escapes.append((predictor(fresh.logits)[defect] == 3).mean())
    assert np.mean(escapes) <= 0.05 + 2 * np.std(escapes) / 5
    assert np.mean(escapes) > 0.02  # and gives nothing away


def test_rare_and_absent_classes_stay_untuned_and_are_named():
    val = simulated(rows=600)
    keep = np.ones(600, dtype=bool)
    keep[np.flatnonzero(val.target == 2)[4:]] = False
    keep[np.flatnonzero(val.target == 1)] = False
    fitted = fit_predictor(val.take(keep), settings(decision="f1", calibration="vector"))
    assert fitted.notes[0] == "fewer than 10 val wafers, threshold not tuned: Loc (0), Scratch (4)"
    values = fitted.predictor.decision.values
    assert values[1] == pytest.approx(values[2])
    assert values[0] != pytest.approx(values[3])
    labels = labelled()
    labels.target[:, 1] = 0
    labels.target[7, 1] = 1
    fitted = fit_predictor(labels, settings(decision="f1"))
    assert fitted.notes[0] == "fewer than 10 val wafers, threshold not tuned: b (1)"
    assert fitted.predictor.decision.values[1] == pytest.approx(0.5)


def test_a_reader_is_told_where_tuning_gains_nothing():
    target = np.arange(100) % 2
    separated = Wafers(
        np.arange(100), target, 9 * np.eye(2, dtype=np.float32)[target][:, None], ("a", "none"), "multiclass"
    )
    (note,) = fit_predictor(separated, settings(decision="f1")).notes
    assert "gain nothing out of fold" in note


def test_cost_takes_the_costs_of_the_settings():
    fitted = fit_predictor(simulated(), settings(decision="cost", cost_ratio=7, wrong_defect_cost=2))
    assert isinstance(fitted.predictor.decision, MinimumCost)
    assert fitted.predictor.decision.costs[0] == (0, 2, 2, 7)
    labels = fit_predictor(labelled(), settings(decision="cost", cost_ratio=9))
    assert labels.predictor.decision.costs == ((9, 1),)


def test_several_normal_classes_and_none_at_all():
    names = ("BRIDGE", "CLEAN_LAYER", "OPEN", "CLEAN_VIA")
    val = simulated(names=names)
    clean = settings(decision="recall", normal=["CLEAN_LAYER", "CLEAN_VIA"])
    assert fit_predictor(val, clean).predictor.decision.normal == (1, 3)
    for rule in ("argmax", "f1"):
        fit_predictor(val, settings(decision=rule))
    for rule in ("cost", "recall"):
        with pytest.raises(UserError, match=r"name them in evaluation\.normal"):
            fit_predictor(val, settings(decision=rule))
    given = settings(decision="cost", cost_matrix=(1 - np.eye(4)).tolist())
    np.testing.assert_array_equal(fit_predictor(val, given).decisions, fit_predictor(val, settings()).decisions)
    for rule in ("argmax", "f1", "cost", "recall"):
        with pytest.raises(UserError, match=r"did you mean CLEAN_VIA\?"):
            fit_predictor(val, settings(decision=rule, normal=["CLEAN_VIAS"]))


def test_too_few_val_wafers_are_told():
    with pytest.raises(UserError, match=r"larger data\.val"):
        fit_predictor(simulated(rows=1), settings())
    with pytest.raises(UserError, match=r"takes 999 val wafers with a defect.* raise evaluation\.max_escape_rate"):
        fit_predictor(simulated(rows=300), settings(decision="recall", max_escape_rate=0.001))
    for rows in (2, 3, 7):
        for rule in ("argmax", "f1", "cost"):
            fitted = fit_predictor(simulated(rows=rows), settings(decision=rule, calibration="vector"))
            assert np.isfinite(fitted.probabilities).all()


@pytest.fixture
def predictor():
    calibration = Calibration("temperature", "multiclass", (0.5,) * 4, (0.0,) * 4)
    return Predictor(
        Evaluation(tta="hflip", decision="f1"),
        calibration,
        Thresholds("multiclass", (0.1, 0.2, 0.3, 0.4)),
        NAMES,
        "multiclass",
    )


def test_the_file_can_be_read_by_people(predictor, tmp_path):
    text = predictor.write(tmp_path / "predictor.json").read_text()
    assert '"class_names": ["Center", "Loc", "Scratch", "none"]' in text
    assert '"values": [0.1, 0.2, 0.3, 0.4]' in text
    assert json.loads(text) == json.loads(json.dumps(predictor.to_dict()))
    costs = replace(predictor, decision=MinimumCost("multiclass", ((0.0, 1.0, 2.0, 3.0),) * 4))
    assert costs.write(tmp_path / "predictor.json").read_text().count("[0.0, 1.0, 2.0, 3.0]") == 4
    assert len(text.splitlines()) < 40


def test_damage_is_told_and_not_guessed(predictor, tmp_path):
    path = predictor.write(tmp_path / "predictor.json")
    whole = json.loads(path.read_text())
    for key in whole:
        path.write_text(json.dumps({name: value for name, value in whole.items() if name != key}))
        with pytest.raises(UserError, match=r"predictor\.json: .*wafer-lab evaluate"):
            Predictor.read(path)
    wrong = [
        {"version": 2},
        {"version": "1"},
        {"class_names": ["a", "b"]},
        {"class_names": [1, 2, 3, 4]},
        {"class_names": []},
        {"settings": {"tta": "d8"}},
        {"settings": {"tta": ["none"]}},
        {"settings": {"view": "none"}},
        {"target_kind": "multilabel"},
        {"calibration": None},
        {"calibration": whole["calibration"] | {"scale": [1.0], "bias": [0.0]}},
        {"decision": {"rule": "thresholds", "target_kind": "multiclass", "values": [1.0]}},
        {"decision": {"rule": "recall_constrained", "target_kind": "multiclass", "threshold": 0.1, "normal": [4]}},
    ]
    for values in wrong:
        path.write_text(json.dumps(whole | values))
        with pytest.raises(UserError, match="newer" if values == {"version": 2} else "evaluat"):
            Predictor.read(path)
    path.write_text("[" * 100_000)  # deeper than Python recurses
    with pytest.raises(UserError, match="evaluat"):
        Predictor.read(path)
    for text in ("", "[]", "3", "null", json.dumps(whole)[:-9], "\x00"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"predictor\.json"):
            Predictor.read(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="damaged"):
        Predictor.read(path)
    with pytest.raises(UserError, match="cannot read"):
        Predictor.read(tmp_path / "nowhere.json")
    with pytest.raises(UserError, match="cannot write"):
        predictor.write(path / "below" / "predictor.json")


def test_other_views_or_classes_are_refused(predictor):
    assert predictor(np.zeros((5, len(VIEWS["hflip"]), 4))).shape == (5,)
    for shape in [(5, 1, 4), (5, 2, 3), (5, 4), (2, 4)]:
        with pytest.raises(ValueError, match="tta=hflip"):
            predictor(np.zeros(shape))


def test_predicting_needs_numpy_only(predictor, tmp_path):
    path = predictor.write(tmp_path / "predictor.json")
    code = (
        "import sys, numpy as np; from wafer_lab.evaluation.predictor.predictor import Predictor;"
        f"print(Predictor.read({str(path)!r})(np.eye(4)[[0, 3, 1]][:, None].repeat(2, 1) * 9));"
        "print({'torch', 'scipy', 'sklearn', 'pandas', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[0 3 1]\nset()\n"
