"""Comparing run folders: hand-made ones, and real ones from the command line."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from typer.testing import CliRunner

from wafer_lab.cli.app import app
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.predictor.predictor import Predictor, fit_predictor
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.evaluation.views import wafers
from wafer_lab.workflows.compare import compare
from wafer_lab.workflows.finished import find_runs

NAMES = ("Donut", "Loc", "none")
ROWS = 120  # of val, and of test


@pytest.fixture
def table():
    """A table of val and test wafers in two views: table(right=0.8, seed=1)."""

    def make(right=0.8, seed=0):
        target = np.tile(np.random.default_rng(99).integers(0, 3, 2 * ROWS), 2)
        random = np.random.default_rng(seed)
        called = np.where(random.random(4 * ROWS) < right, target, (target + 1) % 3)
        return Predictions(
            index=np.tile(np.arange(2 * ROWS), 2),
            split=np.tile(np.repeat(["val", "test"], ROWS), 2),
            view=np.repeat(np.array([0, 2], np.int8), 2 * ROWS),
            target=target,
            logits=(random.normal(size=(4 * ROWS, 3)) + 4 * np.eye(3)[called]).astype(np.float32),
            class_names=NAMES,
            target_kind="multiclass",
            split_digest="5p117",
            data_fingerprint="da7a",
        )

    return make


@pytest.fixture
def leave(tmp_path):
    """Leave a run's folder: leave("name", table, seed=1, loss="Focal") -> its path."""

    def made(name, table, seed=0, loss="CrossEntropy", **more):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        config = {"name": name, "seed": seed, "loss": {"_target_": f"losses.{loss}"}, "paths": {"run": str(folder)}}
        config |= {"data": {"run_seed": seed}, "task": {"seed": seed}, "figures": True}
        OmegaConf.save(OmegaConf.create(config | more), folder / "config.yaml")
        if table is not None:
            table.write(folder / "predictions.parquet")
        return folder

    return made


def deploy(folder, **settings):
    """Leave a fitted predictor with a run."""
    settings = Evaluation(**settings)
    table = Predictions.read(folder / "predictions.parquet")
    fit_predictor(wafers(table, "val", settings.tta), settings).predictor.write(folder / "predictor.json")


def cells(out):
    with (out / "comparison.csv").open(newline="") as file:
        return {row["setting"]: row for row in csv.DictReader(file)}


@pytest.fixture
def two(leave, table):
    """Two settings of two seeds each."""
    a, b = ([leave(f"{x}{k}", table(r, 10 * i + k), k, x) for k in (0, 1)] for i, (x, r) in enumerate(
        (("Bce", 0.7), ("Focal", 0.9))
    ))  # fmt: skip
    return [*a, *b]


def test_the_files_say_what_was_found(two, tmp_path, capsys):
    found, out = compare(two, out=tmp_path / "out")
    assert sorted(file.name for file in out.iterdir()) == ["comparison.csv", "comparison.md", "comparison.png"]
    rows = cells(out)
    assert set(rows) == {"loss=Bce", "loss=Focal"}
    for k, folder in enumerate(two):
        test = Predictions.read(folder / "predictions.parquet").select("test", 0)
        assert found.settings[1 - k // 2].scores[k % 2] == pytest.approx(
            _f1(test.target, test.logits.argmax(1)), abs=1e-9
        )
    assert found.baseline == "loss=Focal", "the best on val"
    assert found.differences[0].adjusted_bootstrap < 0.05
    said = capsys.readouterr().out
    assert "worse" in said
    assert str(out) in said


def _f1(target, called):
    from sklearn.metrics import f1_score

    return f1_score(target, called, average="macro")


def test_a_folder_of_runs_is_taken_whole_without_the_unfinished(two, leave, tmp_path, capsys):
    stopped = leave("stopped", None)
    found, out = compare([tmp_path / "runs"], out=tmp_path / "out")
    assert sorted(name for s in found.settings for name in s.runs) == ["Bce0", "Bce1", "Focal0", "Focal1"]
    assert f"Left out, without predictions: {stopped.name}" in (out / "comparison.md").read_text()
    with pytest.raises(UserError, match=r"stopped holds no predictions.*not finished"):
        find_runs([two[0], stopped])


def test_a_run_is_given_once(two, leave, table, tmp_path):
    with pytest.raises(UserError, match=r"given twice"):
        find_runs([two[0], two[1].parent])
    (tmp_path / "link").symlink_to(two[0])
    with pytest.raises(UserError, match=r"given twice"):
        find_runs([two[0], tmp_path / "link"])
    copy = leave("copy", table(0.7, 0), 0, "Bce")
    with pytest.raises(UserError, match=r"Bce0 and .*copy hold the same predictions"):
        compare([*two, copy], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_same_answers_of_two_settings_are_compared(leave, table, tmp_path):
    found, _ = compare([leave("a", table(), loss="A"), leave("b", table(), loss="B")], out=tmp_path / "out")
    assert (found.differences[0].difference, found.differences[0].p_bootstrap) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"split_digest": "07h3r"}, "one and .*two.* different splits .5p117 and 07h3r"),
        ({"data_fingerprint": "07h3r"}, "different data .da7a and 07h3r"),
        ({"class_names": ("Donut", "Ring", "none")}, "different classes .Donut, Loc, none and Donut, Ring, none"),
    ],
)
def test_runs_of_other_wafers_are_refused(leave, table, tmp_path, change, said):
    runs = [leave("one", table()), leave("two", replace(table(), **change), 1)]
    with pytest.raises(UserError, match=said):
        compare(runs, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_test_wafers_under_the_same_digest_are_refused(leave, table, tmp_path):
    whole = table(seed=1)
    fewer = whole.select(rows=whole.index != 2 * ROWS - 1)
    other = replace(whole, target=(whole.target + 1) % 3)
    with pytest.raises(UserError, match=r"other test wafers .120 and 119"):
        compare([leave("one", table()), leave("two", fewer)], out=tmp_path / "out")
    with pytest.raises(UserError, match=r"other test labels"):
        compare([leave("three", table()), leave("four", other)], out=tmp_path / "out")


def test_what_a_folder_lacks_is_said_with_its_name(leave, table, tmp_path):
    good, only_val = leave("good", table()), leave("bad", table().select("val"))
    with pytest.raises(UserError, match=r"bad: .*no test rows"):
        compare([good, only_val])
    with pytest.raises(UserError, match=r"at least two runs"):
        compare([good])
    with pytest.raises(UserError, match=r"there is no folder"):
        compare([good, tmp_path / "nothing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty holds no predictions"):
        compare([good, tmp_path / "empty"])
    (only_val / "config.yaml").write_text("a: [")
    with pytest.raises(UserError, match=r"damaged"):
        compare([good, only_val])
    (only_val / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"bad is not a run.s folder"):
        compare([good, only_val])


def test_a_comparison_is_not_overwritten(two, tmp_path):
    compare(two, out=tmp_path / "out")
    with pytest.raises(UserError, match=r"already holds a comparison"):
        compare(two, out=tmp_path / "out")


def test_runs_are_compared_as_deployed(leave, table, tmp_path):
    """The same configs, other views and rules in predictor.json: two settings, judged by their own predictors."""
    single, averaged = leave("single", table()), leave("averaged", table(seed=1), 1)
    deploy(single, tta="none", calibration="none")
    deploy(averaged, tta="hflip", calibration="temperature", decision="f1")
    found, out = compare([single, averaged], out=tmp_path / "out")
    assert set(cells(out)) == {
        "evaluation(tta=none, calibration=none) evaluation.decision=argmax",
        "evaluation(tta=hflip, calibration=temperature) evaluation.decision=f1",
    }
    predictor = Predictor.read(averaged / "predictor.json")
    test = wafers(Predictions.read(averaged / "predictions.parquet"), "test", "hflip")
    expected = {"single": None, "averaged": _f1(test.target, predictor(test.logits))}
    test = wafers(Predictions.read(single / "predictions.parquet"), "test")
    expected["single"] = _f1(test.target, test.logits[:, 0].argmax(1))
    assert {s.runs[0]: s.mean for s in found.settings} == pytest.approx(expected)
    (averaged / "predictor.json").unlink()
    with pytest.raises(UserError, match=r"has no predictor.json"):
        compare([single, averaged], out=tmp_path / "again")
    found, _ = compare([single, averaged], refit={"tta": "hflip", "decision": None}, out=tmp_path / "alike")
    assert [len(s.scores) for s in found.settings] == [2], "evaluated alike they differ in the seed only"


def test_a_rule_of_other_costs_is_another_setting(leave, table, tmp_path):
    """Evaluated again after training, which the config does not know."""
    runs = [leave(f"run{k}", table(seed=k), k) for k in range(3)]
    for run, ratio in zip(runs, (5.0, 5.0, 50.0), strict=True):
        deploy(run, decision="cost", cost_ratio=ratio)
    found, out = compare(runs, out=tmp_path / "out")
    assert {s.name: s.runs for s in found.settings} == {
        "evaluation.decision.cost_ratio=5": ("run0", "run1"),
        "evaluation.decision.cost_ratio=50": ("run2",),
    }
    assert "Costs and normal classes are those of run0; other ones were set for: run2" in document(out)


def test_rules_with_other_bounds_are_told_apart(leave, table, tmp_path):
    runs = [leave(f"run{k}", table(seed=k), k) for k in range(3)]
    for run, settings in zip(
        runs, ({"decision": "recall", "max_escape_rate": 0.1}, {"decision": "recall", "max_escape_rate": 0.2}, {}),
        strict=True,
    ):  # fmt: skip
        deploy(run, **settings)
    found, _ = compare(runs, out=tmp_path / "out")
    assert {s.name for s in found.settings} == {
        "evaluation.decision=recall(max_escape_rate=0.1)",
        "evaluation.decision=recall(max_escape_rate=0.2)",
        "evaluation.decision=argmax",
    }


def test_costs_of_the_predictor_beat_those_of_the_config(leave, table, tmp_path):
    runs = [leave(f"run{k}", table(seed=k), k, evaluation={"cost_ratio": 7.0}) for k in range(2)]
    for run in runs:
        deploy(run, cost_ratio=5.0)
    found, out = compare(runs, score="cost", out=tmp_path / "out")
    assert "Costs and normal" not in document(out)
    tables = [Predictions.read(run / "predictions.parquet").select("test", 0) for run in runs]
    assert found.settings[0].scores == pytest.approx([_cost(test.target, test.decisions(), 5) for test in tables])


def _cost(target, called, ratio):
    escapes, alarms = ((target != 2) & (called == 2)).sum(), ((target == 2) & (called != 2)).sum()
    return (ratio * escapes + alarms) / len(target)


def document(out):
    return (out / "comparison.md").read_text()


def test_the_baseline_is_the_best_on_val_out_of_fold(leave, table, tmp_path):
    """On val itself tuned thresholds look better than they are; a tuned run is not to win by that."""
    runs = [leave(name, table(0.5, k), loss=name) for k, name in enumerate("AB")]
    for run in runs:
        deploy(run, decision="f1")
    found, _ = compare(runs, out=tmp_path / "fitted")
    val = {s.name: s.val for s in found.settings}
    for run in runs:
        part = wafers(Predictions.read(run / "predictions.parquet"), "val")
        honest = fit_predictor(part, Evaluation(decision="f1"))
        inside = honest.predictor.decision(honest.predictor.probabilities(part.logits))
        assert val[f"loss={run.name}"] == pytest.approx(_f1(part.target, honest.decisions))
        assert val[f"loss={run.name}"] < _f1(part.target, inside)
    assert found.baseline == max(val, key=val.get)
    for run, score in zip(runs, (0.1, 0.2) if found.baseline == "loss=A" else (0.2, 0.1), strict=True):
        (run / "metrics.json").write_text(json.dumps({"val/f1_macro": score, "test/f1_macro": 1 - score}))
    other, _ = compare(runs, out=tmp_path / "reported")
    assert other.baseline != found.baseline
    assert sorted(s.val for s in other.settings) == [0.1, 0.2]


def test_scores_on_val_of_other_costs_are_not_taken(leave, table, tmp_path):
    runs = [leave(name, table(seed=k), loss=name) for k, name in enumerate("AB")]
    for run, ratio in zip(runs, (5.0, 50.0), strict=True):
        deploy(run, cost_ratio=ratio)
        (run / "metrics.json").write_text('{"val/cost": 0.25}')
    found, _ = compare(runs, score="cost", out=tmp_path / "out")
    val = {s.runs[0]: s.val for s in found.settings}
    part = wafers(Predictions.read(runs[1] / "predictions.parquet"), "val")
    assert val == pytest.approx({"A": 0.25, "B": _cost(part.target, part.logits[:, 0].argmax(1), 5)})


def test_without_val_the_baseline_is_named(leave, table, tmp_path):
    runs = [leave(name, table(seed=k).select("test"), loss=name) for k, name in enumerate("AB")]
    with pytest.raises(UserError, match=r"no f1_macro on val .*--baseline, of: loss=A; loss=B"):
        compare(runs, out=tmp_path / "out")
    found, out = compare(runs, baseline="loss=B", out=tmp_path / "out")
    assert (found.baseline, found.baseline_from_val) == ("loss=B", False)
    assert "Without predictor.json, so judged by argmax of one view, uncalibrated: A, B" in document(out)


def test_refitting_uses_the_views_asked_for(two, tmp_path):
    plain, _ = compare(two, out=tmp_path / "plain")
    averaged, out = compare(two, refit={"tta": "hflip"}, out=tmp_path / "averaged")
    table = Predictions.read(two[0] / "predictions.parquet")
    settings = Evaluation(tta="hflip")
    predictor = fit_predictor(wafers(table, "val", "hflip"), settings).predictor
    test = wafers(table, "test", "hflip")
    expected = _f1(test.target, predictor.decision(predictor.probabilities(test.logits)))
    assert averaged.settings[1].scores[0] == pytest.approx(expected)
    assert averaged.settings[1].scores != plain.settings[1].scores
    assert "tta=hflip, calibration=temperature, decision=argmax" in (out / "comparison.md").read_text()
    with pytest.raises(UserError, match=r"Bce0: .*tta=d4 needs views"):
        compare(two, refit={"tta": "d4"}, out=tmp_path / "more")


def test_costs_are_those_of_the_first_run_and_it_is_said(leave, table, tmp_path):
    runs = [
        leave("a", table(seed=1), loss="A", evaluation={"cost_ratio": 5.0}),
        leave("b", table(seed=2), loss="B", evaluation={"cost_ratio": 50.0}),
    ]
    found, out = compare(runs, score="cost", out=tmp_path / "out")
    assert "Costs and normal classes are those of a" in (out / "comparison.md").read_text()
    test = Predictions.read(runs[1] / "predictions.parquet").select("test", 0)
    called, none = test.decisions(), 2
    escapes, alarms = ((test.target != none) & (called == none)).sum(), ((test.target == none) & (called != none)).sum()
    cost = {s.name: s.mean for s in found.settings}["loss=B"]
    assert cost == pytest.approx((5 * escapes + alarms) / ROWS)
    assert found.lower_is_better


MLFLOW = {"_target_": "wafer_lab.tracking.mlflow_tracker.MLflowTracker", "experiment": "wafer_lab"}


def test_a_store_that_is_not_here_is_not_made(leave, table, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("WAFER_LAB_OUTPUTS", str(tmp_path / "outputs"))
    elsewhere = tmp_path / "elsewhere" / "mlflow.db"
    node = {**MLFLOW, "uri": None, "store": str(elsewhere)}
    runs = [leave(name, table(seed=k), k, tracking=node) for k, name in enumerate("ab")]
    compare(runs, out=tmp_path / "out")
    assert not elsewhere.parent.exists()
    assert not (tmp_path / "outputs").exists()
    assert "not recorded in MLflow: there is no" in capsys.readouterr().err


def test_a_stranger_says_neither_where_to_record_nor_how(leave, table, tmp_path, tracked_runs, monkeypatch):
    monkeypatch.setenv("WAFER_LAB_OUTPUTS", str(tmp_path / "ours"))
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "mlflow.db").touch()
    node = {**MLFLOW, "uri": "http://user:password@127.0.0.1:9", "store": str(tmp_path / "theirs.db")}
    node |= {"artifacts": {"_target_": "os.mkdir", "path": str(tmp_path / "ran")}}
    runs = [leave(name, table(seed=k), k, tracking=node) for k, name in enumerate("ab")]
    (runs[1] / "facts.json").write_text('{"run_id": "b1d"}')
    compare(runs, out=tmp_path / "out")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "theirs.db").exists()
    (record,) = tracked_runs(tmp_path / "ours" / "mlflow.db")
    assert record.data.tags["compared"] == "b1d", "the other run's id is not known"
    assert Path(record.info.artifact_uri.removeprefix("file://")).is_relative_to(tmp_path / "ours" / "mlartifacts")


def test_the_command_compares_real_runs_and_records_it(tiny, tracked_runs, tmp_path, monkeypatch):
    from wafer_lab.workflows.fit import fit

    monkeypatch.setenv("WAFER_LAB_OUTPUTS", str(tmp_path))
    losses = ("cross_entropy", "focal")
    runs = [fit(tiny(f"loss={loss}", "tracking=mlflow", run=f"run{k}")).run_dir for k, loss in enumerate(losses)]
    command = ["compare", *map(str, runs), "--score", "auroc_macro"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0
    assert "loss=FocalLoss" in result.output
    (out,) = (tmp_path / "comparisons").iterdir()
    rows = cells(out)
    assert set(rows) == {"loss=CrossEntropyLoss", "loss=FocalLoss"}
    metrics = [json.loads((run / "metrics.json").read_text())["test/auroc_macro"] for run in runs]
    assert float(rows["loss=CrossEntropyLoss"]["mean"]) == pytest.approx(metrics[0], abs=1e-5)
    assert float(rows["loss=FocalLoss"]["mean"]) == pytest.approx(metrics[1], abs=1e-5)
    tracked = {run.info.run_name: run for run in tracked_runs(tmp_path / "mlflow.db")}
    assert set(tracked) == {"run0", "run1", "comparison"}
    record = tracked["comparison"]
    assert record.info.status == "FINISHED"
    assert record.data.tags["compared"].split() == [tracked[f"run{k}"].info.run_id for k in range(2)]
    kept = Path(record.info.artifact_uri.removeprefix("file://"))
    assert {"comparison.md", "comparison.csv", "comparison.png", "config.yaml"} <= {f.name for f in kept.iterdir()}
    quiet = CliRunner().invoke(app, [*command, "--no-mlflow", "--out", str(tmp_path / "quiet")], catch_exceptions=False)
    assert quiet.exit_code == 0
    assert len(tracked_runs(tmp_path / "mlflow.db")) == 3


def test_a_mistake_on_the_command_line_is_one_message(two, capsys, monkeypatch):
    from wafer_lab.cli.app import main

    monkeypatch.setattr("sys.argv", ["wafer-lab", "compare", str(two[0]), str(two[0]), "--no-mlflow"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("error: the same run is given twice")
    assert "Traceback" not in told
