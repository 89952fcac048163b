"""From the real public files to predictions, in miniature: every format that users have on their disks."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from wafer_lab.data.readers import open_source
from wafer_lab.workflows.checkpoint import load_task
from wafer_lab.workflows.fit import fit
from wafer_lab.workflows.inference import predict_source

MODEL = ["model=wafer_cnn", "model.width=8", "debug=smoke"]


def trained_and_used(cfg, source, tmp_path):
    """Fit, check the scores' file, label the whole source; returns the table of answers."""
    result = fit(cfg)
    metrics = json.loads((result.run_dir / "metrics.json").read_text())
    assert 0 <= metrics["test/f1_macro"] <= 1
    count = predict_source(load_task(result.run_dir), open_source(source), tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.num_rows == count
    assert table["index"].to_pylist() == list(range(count))
    return result, table


@pytest.mark.parametrize("form", ["legacy", "modern"])
def test_wm811k(real_data, lswmd_tool, configured, tmp_path, form):
    maps, fail, part = lswmd_tool.load(real_data / "wm811k_sample.npz", 1500, 0.3, 0)
    file = tmp_path / "LSWMD.pkl"
    (lswmd_tool.write_legacy if form == "legacy" else lswmd_tool.write_modern)(str(file), maps, fail, part)
    cfg = configured("data=wm811k", f"data.path={file}", "loss=focal", *MODEL)
    result, table = trained_and_used(cfg, file, tmp_path)
    labelled = np.array([f.size > 0 for f in fail])
    assert table.num_rows == 1500  # unlabelled wafers are predicted too
    assert labelled[result.predictions.index].all()
    truth = [fail[i].item() for i in result.predictions.index]
    assert truth == [result.predictions.class_names[t] for t in result.predictions.target]


def test_mixedwm38(real_data, configured, tmp_path):
    file = real_data / "mixedwm38_sample.npz"
    cfg = configured("data=mixedwm38", f"data.path={file}", "loss=bce", *MODEL)
    result, table = trained_and_used(cfg, file, tmp_path)
    truth = np.load(file)["arr_1"]
    assert np.array_equal(truth[result.predictions.index], result.predictions.target)
    allowed = set(result.predictions.class_names) | {"none"}
    assert {name for joined in table["prediction"].to_pylist() for name in joined.split("+")} <= allowed


def test_sem(real_data, configured, tmp_path):
    folder = real_data / "sem_sample"
    cfg = configured("data=sem", f"data.path={folder}", "imbalance=class_weights", "data.num_workers=0", *MODEL)
    result, table = trained_and_used(cfg, folder, tmp_path)
    paths = table["path"].to_pylist()
    assert paths == sorted(paths)
    names = [paths[i].split("/")[0] for i in result.predictions.index]
    assert names == [result.predictions.class_names[t] for t in result.predictions.target]
