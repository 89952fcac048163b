import shutil
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image

from wafer_lab.data.readers import open_source
from wafer_lab.data.simulator import Simulator
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.evaluation.views import wafers
from wafer_lab.workflows.checkpoint import load_task
from wafer_lab.workflows.evaluate import evaluate
from wafer_lab.workflows.fit import fit
from wafer_lab.workflows.inference import predict_source

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on simulated wafers, shared by the tests of this file."""
    from hydra import compose, initialize_config_dir

    from wafer_lab.config.resolvers import register

    register()
    root = tmp_path_factory.mktemp("trained")
    places = [f"paths.outputs={root}", f"paths.run={root}/run", "name=run", "tracking=none", "figures=false"]
    small = ["debug=smoke", "data.source.num_wafers=400", "model.width=8"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return fit(compose("train", overrides=[*places, *small]))


def test_the_answer_is_the_same_in_the_table_and_on_the_line(trained, tmp_path):
    loaded = load_task(trained.run_dir)
    count = predict_source(loaded, Simulator(num_wafers=400), tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet").to_pandas()
    assert count == len(table) == 400
    assert table["index"].tolist() == list(range(400))
    probabilities = table[[f"p_{name}" for name in trained.predictions.class_names]].to_numpy()
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    names = np.array(trained.predictions.class_names)
    assert table["prediction"].tolist() == names[probabilities.argmax(1)].tolist()
    predictor = Predictor.read(trained.run_dir / "predictor.json")
    assert predictor.calibration.temperature != 1
    for split in ("val", "test"):
        known = wafers(trained.predictions, split)
        assert np.allclose(probabilities[known.index], predictor.probabilities(known.logits), atol=1e-5)


def test_the_line_decides_as_the_run_was_told_to(trained, tmp_path):
    run = shutil.copytree(trained.run_dir, tmp_path / "run")
    judgement = evaluate(run, {"tta": "d4", "decision": "cost", "cost_ratio": 30.0})
    predict_source(load_task(run), Simulator(num_wafers=400), tmp_path / "out.parquet")
    decided = pq.read_table(tmp_path / "out.parquet")["prediction"].to_numpy()
    test = judgement.test
    names = np.array(test.wafers.class_names)
    assert decided[test.wafers.index].tolist() == names[test.decisions].tolist()
    bare = load_task(run / "checkpoints" / "best.ckpt").predictor
    assert (bare.tta, bare.calibration.kind) == ("none", "none")


def test_a_predictor_of_other_classes_is_refused(trained, tmp_path):
    run = shutil.copytree(trained.run_dir, tmp_path / "run")
    file = run / "predictor.json"
    file.write_text(file.read_text().replace("Donut", "Do-nut"))
    with pytest.raises(UserError, match="fitted for other classes"):
        load_task(run)


def test_csv_by_the_ending(trained, tmp_path):
    predict_source(load_task(trained.run_dir), Simulator(num_wafers=30), tmp_path / "out.csv")
    table = pyarrow.csv.read_csv(tmp_path / "out.csv")
    assert table.num_rows == 30
    assert table.column_names[:2] == ["index", "prediction"]


def test_loose_maps(trained, tmp_path):
    for i, shape in enumerate([(30, 30), (26, 41)]):
        np.save(tmp_path / f"lot{i}.npy", np.random.default_rng(i).integers(0, 4, shape))
    loaded = load_task(trained.run_dir)
    predict_source(loaded, open_source(tmp_path), tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet")["path"].to_pylist() == ["lot0.npy", "lot1.npy"]
    assert predict_source(loaded, open_source(tmp_path / "lot1.npy"), tmp_path / "one.parquet") == 1


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.full((3, 3), 7), "die states"),
        (np.zeros((2, 2, 2, 2)), "wafer map is"),
        (np.array([["a"]]), "wafer map is"),
        (np.array([{}], dtype=object), "not a .npy file of numbers"),
        (np.full((3, 3), np.nan), "die states"),
    ],
)
def test_what_is_no_map_is_said(tmp_path, array, says):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(UserError, match=says):
        list(open_source(tmp_path / "x.npy").rows())


def test_images_are_not_maps(trained, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    with pytest.raises(UserError, match="trained on maps"):
        predict_source(load_task(trained.run_dir), open_source(tmp_path / "x.png"), tmp_path / "out.csv")


def test_a_failure_half_way_leaves_no_file(trained, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((5, 5), np.uint8))
    (tmp_path / "b.npy").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"b\.npy"):
        predict_source(load_task(trained.run_dir), open_source(tmp_path), tmp_path / "out.parquet")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npy", "b.npy"]


def test_an_ending_that_is_no_table(trained, tmp_path):
    with pytest.raises(UserError, match=r"\.parquet or \.csv"):
        predict_source(load_task(trained.run_dir), Simulator(num_wafers=5), tmp_path / "out.xlsx")
