"""A run, its exported file, and that both say the same."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from wafer_lab.cli.app import app
from wafer_lab.data.simulator import Simulator
from wafer_lab.errors import UserError
from wafer_lab.evaluation.views import wafers
from wafer_lab.export import card, zoo
from wafer_lab.export.predictor import WaferModel
from wafer_lab.tracking.mlflow_tracker import MLflowTracker
from wafer_lab.tracking.registry import register
from wafer_lab.workflows.checkpoint import load_task
from wafer_lab.workflows.export import export_run, register_run, training_wafers
from wafer_lab.workflows.fit import fit
from wafer_lab.workflows.inference import NetworkJudge
from wafer_lab.workflows.labelling import label_source

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on simulated wafers, shared by the tests of this file."""
    from hydra import compose, initialize_config_dir

    from wafer_lab.config.resolvers import register

    register()
    root = tmp_path_factory.mktemp("trained")
    places = [f"paths.outputs={root}", f"paths.run={root}/run", "name=run", "tracking=none", "figures=false"]
    small = ["debug=smoke", "data.source.num_wafers=400", "model.width=8", "evaluation.resamples=100"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return fit(compose("train", overrides=[*places, *small]))


@pytest.fixture(scope="module")
def exported(trained):
    """The run as a file, with all eight views."""
    file = trained.run_dir / "d4.onnx"
    export_run(trained.run_dir, file, tta="d4")
    return file


def test_file_and_run_say_the_same(trained, exported, tmp_path):
    model, loaded = WaferModel(exported), load_task(trained.run_dir)
    said = {}
    for name, judge in (("file", model), ("run", NetworkJudge(loaded._replace(predictor=model.predictor)))):
        label_source(judge, Simulator(num_wafers=300), tmp_path / f"{name}.parquet")
        said[name] = pq.read_table(tmp_path / f"{name}.parquet")
    assert said["file"].column_names == said["run"].column_names
    assert said["file"]["prediction"].equals(said["run"]["prediction"])
    for name in model.class_names:
        assert np.allclose(said["file"][f"p_{name}"], said["run"][f"p_{name}"], atol=1e-4)


def test_the_predictor_is_fitted_for_the_views(trained, exported):
    predictor = WaferModel(exported).predictor
    assert predictor.tta == "d4"
    own = load_task(trained.run_dir).predictor
    assert own.tta == "none"
    assert predictor.calibration.temperature != own.calibration.temperature
    known = wafers(trained.predictions, "test", "d4")
    rows = training_rows(known.index)
    assert np.allclose(WaferModel(exported).probabilities(rows), predictor.probabilities(known.logits), atol=1e-4)


def training_rows(index):
    """The simulated maps of some rows."""
    maps = []
    for rows in Simulator(num_wafers=400).rows():
        sizes = rows.height.astype(np.int64) * rows.width
        starts = np.cumsum(sizes) - sizes
        shapes = zip(starts, sizes, rows.height, rows.width, strict=True)
        maps += [rows.cells[start : start + size].reshape(h, w) for start, size, h, w in shapes]
    return [maps[i] for i in index]


def test_the_file_says_where_it_comes_from(trained, exported):
    made = WaferModel(exported).description
    record = json.loads(made.to_json())["record"]
    assert record["split_digest"] == trained.predictions.split_digest
    assert record["data_fingerprint"] == trained.predictions.data_fingerprint
    assert record["metrics"]["test/f1_macro"] == pytest.approx(trained.scores["test/f1_macro"])
    assert (made.kind, made.encoding, made.activation) == ("maps", "one_hot", "hires_cam")
    assert made.made["opset"] == 20


def test_int8_is_smaller_and_says_nearly_the_same(trained, exported, tmp_path):
    from wafer_lab.export.quantise import quantise
    from wafer_lab.workflows.export import _data

    datamodule, whole = _data(trained.run_dir, "none"), WaferModel(exported)
    batches = list(training_wafers(datamodule))
    assert sum(map(len, batches)) == len(datamodule.split.train)
    quantise(exported, batches, whole.description, tmp_path / "int8.onnx")
    small = WaferModel(tmp_path / "int8.onnx")
    maps = training_rows(range(100))
    difference = np.abs(small.probabilities(maps) - whole.probabilities(maps))
    assert 0 < difference.mean() < 0.05
    assert (tmp_path / "int8.onnx").read_bytes().count(b"QuantizeLinear") > 10


def test_pruned_weights_stay_zero_through_fine_tuning(trained, tmp_path):
    from wafer_lab.workflows.export import _data
    from wafer_lab.workflows.prune import prune_network

    loaded, datamodule = load_task(trained.run_dir), _data(trained.run_dir, "none")
    before = {name: value.clone() for name, value in loaded.network.state_dict().items()}
    with pytest.raises(UserError, match="no share"):
        prune_network(trained.run_dir, loaded, datamodule, 1.0, 1)
    pruned = prune_network(trained.run_dir, loaded, datamodule, 0.5, 1)
    after = pruned.loaded.network.state_dict()
    assert before.keys() == after.keys()  # no masks are left
    assert pruned.zeros == pytest.approx(0.5, abs=0.01)
    conv = "encoder.stem.1.0.weight"
    kept = after[conv] != 0
    assert (before[conv][~kept].abs().max() <= before[conv][kept].abs().max()).item()
    assert not np.array_equal(before[conv][kept].numpy(), after[conv][kept].numpy())  # the others were trained
    assert not pruned.loaded.network.training
    assert 0 <= pruned.scores["test/f1_macro"] <= 1


def test_the_registry_serves_maps_of_any_size(trained, exported, monkeypatch, tmp_path):
    """Over a TCP connection to the scoring server that `mlflow models serve` starts."""
    import http.client
    import threading
    import warnings

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's own insides
        found = register_run(trained.run_dir, exported, "wafers", "champion")
        assert found.version == "1"
        assert not Path("mlruns").exists()
        tracker = MLflowTracker(found.uri, "wafer_lab", tmp_path, tmp_path / "unused.db")
        with tracker.run("training", {"a": 1}, {}) as training:
            pass
        with pytest.raises(UserError, match="does not register a/b"):
            register(exported, tracker, "a/b", None, training.id)
        import mlflow
        import uvicorn
        from mlflow.pyfunc import scoring_server

        record = mlflow.MlflowClient(found.uri).get_run(training.id)
        assert (record.info.status, record.data.params) == ("FINISHED", {"a": "1"})  # whatever became of the export
        before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
        mlflow.set_tracking_uri(found.uri)
        mlflow.set_registry_uri(found.uri)
        try:
            assert len(mlflow.onnx.load_model("models:/wafers@champion").graph.node) > 20
            loaded = mlflow.pyfunc.load_model("models:/wafers@champion")
        finally:
            mlflow.set_tracking_uri(before[0])
            mlflow.set_registry_uri(before[1])
        server = uvicorn.Server(uvicorn.Config(scoring_server.init(loaded), port=0, log_level="error"))
        line = threading.Thread(target=server.run)
        line.start()
        try:
            while not server.started:
                line.join(0.05)
                assert line.is_alive()
            port = server.servers[0].sockets[0].getsockname()[1]
            maps = [*training_rows([0, 1]), np.full((4, 4), 9)]
            records = [{"wafer": states.tolist()} for states in maps]
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            body = json.dumps({"dataframe_records": records})
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = json.loads(answer.read())
            connection.close()
        finally:
            server.should_exit = True
            line.join()
    assert answer.status == 200, content
    answers = WaferModel(exported)(maps[:2])
    assert [row["prediction"] for row in content["predictions"][:2]] == [said.prediction for said in answers]
    for row, said in zip(content["predictions"], answers, strict=False):
        assert list(row.values())[1:-1] == pytest.approx(said.probabilities.tolist(), abs=1e-6)
    assert content["predictions"][2]["prediction"] is None
    assert "value 9" in content["predictions"][2]["error"]


def test_the_command_line(exported, tmp_path):
    maps = tmp_path / "maps"
    maps.mkdir()
    np.save(maps / "a.npy", np.ones((26, 30)))
    np.save(maps / "b.npy", np.full((4, 4), 7))
    done = CliRunner().invoke(app, ["predict", str(exported), str(maps), "--out", str(tmp_path / "out.csv")])
    assert done.exit_code == 0, done.output
    assert "2 wafers; 1 could not be judged" in done.output
    for arguments, says in [
        (["predict", str(exported), str(maps), "--out", "masks.json"], "from a run's folder"),
        (["predict", str(exported), str(maps), "--out", "x.csv", "--scale", "2"], "about masks"),
        (["export", str(exported.parent), "--out", "model.pt"], "written as .onnx"),
        (["export", str(exported.parent), "--alias", "champion"], "--register"),
        (["export", str(exported.parent), "--epochs", "3"], "--prune SHARE"),
        (["export", str(exported.parent / "checkpoints" / "best.ckpt"), "--tta", "d4"], "name the run's folder"),
        (["export", str(exported.parent / "checkpoints" / "best.ckpt"), "--int8"], "training wafers"),
    ]:
        refused = CliRunner().invoke(app, arguments)
        assert isinstance(refused.exception, UserError)
        assert says in str(refused.exception)


@pytest.fixture
def zoo_folder(tmp_path, monkeypatch):
    """An empty zoo in place of the checkout's."""
    monkeypatch.setenv("WAFER_LAB_ZOO", str(tmp_path / "zoo"))
    return tmp_path / "zoo"


def test_a_run_becomes_a_model_of_the_zoo(trained, zoo_folder, tmp_path, monkeypatch):
    run = ["export", str(trained.run_dir), "--zoo"]
    monkeypatch.setattr(zoo, "LIMIT", 100_000)  # less than at 16 bits
    done = CliRunner().invoke(app, [*run, "tiny", "--note", "It is small."])
    assert done.exit_code == 0, done.output
    facts = card.read(zoo_folder / "tiny.md")
    assert facts["file"]["weight_bits"] == 8
    assert facts["file"]["bytes"] == (zoo_folder / "tiny.onnx").stat().st_size <= 100_000
    assert facts["scores"]["f1_macro"][0] == pytest.approx(trained.scores["test/f1_macro"], abs=1e-4)
    assert facts["data"]["split_digest"] == trained.predictions.split_digest
    assert facts["data"]["test"] == facts["agreement"]["wafers"] == 48
    assert facts["agreement"]["same"] >= 46
    page = (zoo_folder / "tiny.md").read_text()
    assert page == card.page(facts)
    assert "It is small." in page
    assert str(trained.run_dir.parent) not in page
    np.save(tmp_path / "a.npy", np.ones((26, 30)))
    done = CliRunner().invoke(app, ["predict", "zoo:tiny", str(tmp_path / "a.npy"), "--out", str(tmp_path / "o.csv")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "o.csv").read_text().count("\n") == 2
    for arguments, says in [
        (["predict", "zoo:tinny", "a.npy", "--out", "x.csv"], "did you mean zoo:tiny? it has tiny"),
        (["demo", "zoo:"], "it has tiny"),
        ([*run, "a/b"], "no name for a model"),
        ([*run, "tiny", "--tta", "d4"], "leave out --tta"),
        ([*run, "tiny", "--data", str(tmp_path)], "simulated"),
        (["export", str(trained.run_dir), "--note", "x"], "--zoo NAME"),
    ]:
        refused = CliRunner().invoke(app, arguments)
        assert isinstance(refused.exception, UserError), refused
        assert says in str(refused.exception)
    (zoo_folder / "tiny.onnx").unlink()
    with pytest.raises(UserError, match="clone of the repository"):
        zoo.located("zoo:tiny")


@pytest.mark.parametrize(("bits", "error"), [(16, 2**-11), (8, 0.5 / 127)])
def test_rounded_weights_are_off_by_half_a_step_at_most(exported, tmp_path, bits, error):
    from onnx import load, numpy_helper
    from onnx.reference import ReferenceEvaluator

    from wafer_lab.export.compress import compress

    said = compress(exported, bits, tmp_path / "small.onnx")
    assert said == WaferModel(tmp_path / "small.onnx").description
    assert said.made["weight_bits"] == bits
    assert said.predictor == WaferModel(exported).predictor
    before, after = load(exported), load(tmp_path / "small.onnx")
    whole = {tensor.name: numpy_helper.to_array(tensor) for tensor in before.graph.initializer}
    kept = {tensor.name for tensor in after.graph.initializer}
    rounded = [name for name in whole if name not in kept]
    assert rounded
    steps = [node for node in after.graph.node if node.op_type == "Cast" and node.input[0] in kept - whole.keys()]
    del after.graph.node[len(steps) * (2 if bits == 8 else 1) :], after.graph.output[:], after.graph.input[:]
    values = ReferenceEvaluator(after, verbose=0)
    for name in rounded:
        weight, found = whole[name], np.asarray(values.run([name], {})[0])
        largest = np.abs(weight).reshape(len(weight), -1).max(1)
        assert (np.abs(found - weight).reshape(len(weight), -1).max(1) <= error * largest * 1.001).all()
    maps = training_rows(range(100))
    difference = np.abs(
        WaferModel(tmp_path / "small.onnx").probabilities(maps) - WaferModel(exported).probabilities(maps)
    )
    assert 0 < difference.max() < 0.02
