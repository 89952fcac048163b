import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from wafer_lab.cli.app import app
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.workflows.evaluate import evaluate
from wafer_lab.workflows.fit import fit


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with figures, shared by the tests of this file."""
    from hydra import compose, initialize_config_dir

    from wafer_lab.config.resolvers import register

    register()
    root = tmp_path_factory.mktemp("finished")
    places = [f"paths.outputs={root}", f"paths.run={root}/run", "name=run", "tracking=none"]
    small = ["debug=smoke", "data.source.num_wafers=400", "model.width=8"]
    conf = Path(__file__).resolve().parents[2] / "conf"
    with initialize_config_dir(str(conf), version_base="1.3"):
        return fit(compose("train", overrides=[*places, *small])).run_dir


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def test_the_same_settings_give_the_same_files(run):
    before = {name: (run / name).read_text() for name in ("metrics.json", "predictor.json", "rules.csv")}
    evaluate(run, {})
    assert {name: (run / name).read_text() for name in before} == before
    assert json.loads((run / "facts.json").read_text())["times_judged_on_test"] == 2
    assert "| times judged on test | 2 |" in (run / "report.md").read_text()


def test_options_change_the_predictor_the_scores_and_the_report(run):
    done = CliRunner().invoke(
        app, ["evaluate", str(run), "--tta", "d4", "--calibration", "vector", "--decision", "cost", "--cost-ratio", "3"]
    )
    assert done.exit_code == 0, done.output
    predictor = json.loads((run / "predictor.json").read_text())
    assert (predictor["settings"]["tta"], predictor["calibration"]["kind"]) == ("d4", "vector")
    assert predictor["decision"]["costs"][0][-1] == 3
    scores = json.loads((run / "metrics.json").read_text())
    assert f"{scores['test/cost']:.4f}" in done.output
    report = (run / "report.md").read_text()
    assert "least cost at 3:1 (in use)" in report
    assert "worst_errors_test.png" in report


def test_another_folder_leaves_the_run_alone(run, tmp_path):
    before = (run / "metrics.json").read_text()
    evaluate(run, {"decision": "f1"}, tmp_path / "out")
    assert (run / "metrics.json").read_text() == before
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"predictor.json", "metrics.json", "rules.csv", "report.md", "report.html", "figures"}


def test_figures_of_an_earlier_predictor_do_not_stay(run):
    (run / "figures" / "spurious_labels_test.png").write_bytes(b"old")
    (run / "figures" / "mine.png").write_bytes(b"kept")
    evaluate(run, {"resamples": 100})
    assert not (run / "figures" / "spurious_labels_test.png").exists()
    assert (run / "figures" / "mine.png").read_bytes() == b"kept"


def test_without_the_data_the_wafers_are_not_drawn(run):
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("num_wafers: 400", "num_wafers: 0"))
    evaluate(run, {"resamples": 100})
    assert not (run / "figures" / "worst_errors_test.png").exists()
    assert (run / "figures" / "rules_test.png").exists()


def test_mistakes_change_nothing(run, tmp_path):
    table = run / "predictions.parquet"
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    matrix = tmp_path / "costs.csv"
    matrix.write_text("0,1\n1,0\n")
    runner = CliRunner()
    for options, said in [
        (["--decision", "cost", "--cost-matrix", str(matrix)], "9 rows of 9 numbers"),
        (["--cost-matrix", str(matrix), "--cost-ratio", "3"], "leave out --cost-ratio"),
        (["--normal", "nothing"], "evaluation.normal names nothing"),
        (["--max-escape-rate", "2"], "must lie between 0 and 1"),
        (["--decision", "recall", "--max-escape-rate", "0.0001"], "val wafers with a defect"),
    ]:
        error = runner.invoke(app, ["evaluate", str(run), *options]).exception
        assert isinstance(error, UserError)
        assert said in str(error)
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    only_test = Predictions.read(table).select(split="test")
    only_test.write(table)
    with pytest.raises(UserError, match=r"no val rows \(it has test\)"):
        evaluate(run, {})
    shutil.copytree(run, run / "fold_0")
    (run / "predictor.json").unlink()
    with pytest.raises(UserError, match=r"several models.*: fold_0"):
        evaluate(run, {})
    with pytest.raises(UserError, match="is not a run's folder"):
        evaluate(tmp_path, {})


def test_views_that_are_not_stored(run):
    table = Predictions.read(run / "predictions.parquet")
    table.select(view=0).write(run / "predictions.parquet")
    with pytest.raises(UserError, match=r"choose one of none, or train again with data\.views=d4"):
        evaluate(run, {"tta": "d4"})


def test_logits_that_are_not_finite(run):
    file = run / "predictions.parquet"
    table = pq.read_table(file)
    logits = np.stack(table["logits"].to_numpy())
    logits[3, 1] = np.nan
    column = Predictions.read(file)._to_arrow()["logits"].type
    broken = pa.FixedSizeListArray.from_arrays(pa.array(logits.reshape(-1)), column.list_size)
    pq.write_table(table.set_column(table.column_names.index("logits"), "logits", broken), file)
    with pytest.raises(UserError, match=r"1 of .* not finite"):
        evaluate(run, {})


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["evaluation.tta=d4", "data.views=hflip"], "set data.views=d4"),
        (["evaluation.normal=[nothing]"], "evaluation.normal names nothing"),
        (["evaluation.decision=cost", "evaluation.cost_matrix=[[0,1],[1,0]]"], "9 rows of 9"),
    ],
)
def test_what_cannot_be_judged_is_said_before_training(tiny, overrides, said):
    cfg = tiny(*overrides)
    with pytest.raises(UserError, match=said):
        fit(cfg)
    assert not (Path(cfg.paths.run) / "checkpoints").exists()
