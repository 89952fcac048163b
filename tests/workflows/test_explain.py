"""`wafer-lab explain` from a run's folder to figures and numbers."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from wafer_lab.cli.explain import Data, Method
from wafer_lab.config.build import build
from wafer_lab.config.resolvers import register
from wafer_lab.data.classes import MIXEDWM38_CLASSES
from wafer_lab.data.simulator.patterns import PATTERNS
from wafer_lab.errors import UserError
from wafer_lab.evaluation.explanations import METHODS, explain
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.predictor.calibration import Calibration
from wafer_lab.evaluation.predictor.decisions import Thresholds
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.evaluation.views import Wafers, wafers
from wafer_lab.models.classifier import Classifier
from wafer_lab.workflows.assemble import build_network
from wafer_lab.workflows.checkpoint import load_task
from wafer_lab.workflows.explain import LOCALISED, _texts, chosen_pairs, explain_run, measured, spread
from wafer_lab.workflows.material import Material, run_wafers, simulated_wafers
from wafer_lab.workflows.predict import predict_split

CONF = Path(__file__).resolve().parents[2] / "conf"
CPU = torch.device("cpu")


def make_run(folder: Path, *overrides: str) -> Path:
    """The folder of an untrained run: what `explain` reads of one, made without a trainer."""
    register()
    places = [f"paths.outputs={folder}", f"paths.run={folder}/run", "name=run", "tracking=none", "debug=smoke"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=[*places, *overrides])
    datamodule = build(cfg.data)
    datamodule.setup()
    torch.manual_seed(0)
    network = build_network(cfg)
    run = folder / "run"
    (run / "checkpoints").mkdir(parents=True)
    config = OmegaConf.to_container(cfg, resolve=True)
    OmegaConf.save(OmegaConf.create(config), run / "config.yaml")
    record = {"config": config, "class_names": list(datamodule.class_names)}
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"wafer_lab": record, "state_dict": state}, run / "checkpoints/best.ckpt")
    predict_split(network, datamodule, ("val", "test"), CPU).write(run / "predictions.parquet")
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    small = ["data.source.num_wafers=400", "model=resnet18_cbam", "model.width=8", "data.canvas=32"]
    return make_run(tmp_path_factory.mktemp("maps"), *small)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    small = ["data=simulated_mixed", "data.source.num_wafers=400", "model=wafer_cnn", "model.width=8", "loss=bce"]
    return make_run(tmp_path_factory.mktemp("mixed"), *small, "data.canvas=32")


def command(*words: object) -> str:
    from typer.testing import CliRunner

    from wafer_lab.cli.app import app

    done = CliRunner().invoke(app, ["explain", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_draws_test_wafers(run, tmp_path):
    said = command(run, "--count", 9, "--out", tmp_path / "out", "--method", "grad_cam_pp", "--label", "true")
    figures = [tmp_path / "out" / f"test_grad_cam_pp_{i}.png" for i in (1, 2)]
    assert sorted((tmp_path / "out").iterdir()) == figures
    for figure in figures:
        assert str(figure) in said
        with Image.open(figure) as image:
            assert min(image.size) > 300
    command(run, "--count", 3, "--out", tmp_path / "out", "--method", "grad_cam_pp")
    assert sorted((tmp_path / "out").iterdir()) == figures[:1]  # no wafers of the earlier call are left beside


@pytest.mark.parametrize("name", ["run", "mixed"])
def test_the_command_measures_simulated_wafers(name, request, tmp_path):
    run = request.getfixturevalue(name)
    said = command(run, "--data", "simulated", "--wafers", 80, "--label", "true", "--count", 4, "--out", tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "simulated_hires_cam_1.png",
        "simulated_quality.csv",
        "simulated_quality.md",
    ]
    with (tmp_path / "simulated_quality.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["class"] for row in rows} == {*MIXEDWM38_CLASSES, LOCALISED}
    methods = set(METHODS) - ({"cam"} if name == "mixed" else set())  # that model pools the maximum too
    assert {row["method"] for row in rows} == methods
    assert ("cam is left out" in said) == (name == "mixed")
    for row in rows:
        numbers = {key: float(value) for key, value in row.items() if key not in ("class", "method")}
        for measure in ("energy", "pointing"):
            bounds = np.array([0, *(numbers[f"{measure}{end}"] for end in ("_low", "", "_high")), 1])
            assert (np.diff(bounds) > -1e-6).all()
        if row["class"] in ("Near-full", "Random"):
            assert numbers["chance"] == 1
            assert numbers["energy"] == pytest.approx(1 - numbers["no_heat"], abs=1e-6)
    table = (tmp_path / "simulated_quality.md").read_text()
    assert all(line in table for line in said.splitlines() if line.startswith("| "))


def test_the_table_has_every_measure_at_its_place(run):
    """A class of the table by plain loops over its wafers."""
    loaded = load_task(run)
    network = loaded.network
    assert isinstance(network, Classifier)
    material = simulated_wafers(loaded, network, CPU, 64)
    pairs = chosen_pairs(material, "true")
    quality, notes = measured(network, material, pairs, CPU)
    assert not notes
    found = next(q for q in quality if (q.name, q.method) == ("Edge-Ring", "grad_cam"))
    ring = material.wafers.class_names.index("Edge-Ring")
    rows = np.flatnonzero(material.wafers.target == ring)
    assert found.wafers == len(rows) == 8
    energy, chance, failed = [], [], []
    for row in rows:
        pair = np.array([[row, ring]])
        mask, states = (part[0].numpy() for part in material.regions(pair))
        on = states > 0
        heat = explain(network, material.inputs(pair[:, 0]), torch.tensor([ring]), "grad_cam")[0].numpy()
        total = sum(heat[i, j] for i, j in np.ndindex(heat.shape) if on[i, j])
        inside = sum(heat[i, j] for i, j in np.ndindex(heat.shape) if on[i, j] and mask[i, j])
        energy.append(inside / total if total else 0)
        chance.append(mask.sum() / on.sum())
        failed.append((mask & (states == 2)).sum() / (states == 2).sum())
    assert found.energy == pytest.approx(np.mean(energy), abs=1e-5)
    assert found.chance == pytest.approx(np.mean(chance), abs=1e-6)
    assert found.failed == pytest.approx(np.mean(failed), abs=1e-6)
    pooled = [q for q in quality if q.name == LOCALISED]
    assert [q.wafers for q in pooled] == [48] * len(METHODS)  # all but Near-full and Random


def test_heat_that_knows_the_region_scores_one_and_even_heat_the_chance(run, monkeypatch):
    loaded = load_task(run)
    material = simulated_wafers(loaded, loaded.network, CPU, 64)
    pairs = chosen_pairs(material, "true")
    masks = iter([material.regions(pairs)[0].float(), torch.ones(1)])
    monkeypatch.setattr("wafer_lab.workflows.explain.METHODS", ["knows", "even"])
    monkeypatch.setattr("wafer_lab.workflows.explain._heats", lambda *arguments: next(masks))
    quality, _ = measured(loaded.network, material, pairs, CPU)
    for entry in quality:
        if entry.method == "knows":
            assert entry.energy == entry.pointing == 1
        else:
            assert entry.energy == pytest.approx(entry.chance, abs=1e-6)


@pytest.mark.parametrize("name", ["run", "mixed"])
def test_simulated_labels_and_regions_go_by_name(name, request):
    """WM-811K and MixedWM38 order their classes differently, so a mix-up of bits shows at once."""
    loaded = load_task(request.getfixturevalue(name))
    material = simulated_wafers(loaded, loaded.network, CPU, 111)
    names = material.wafers.class_names
    pairs = chosen_pairs(material, "true")
    masks, states = (part.numpy() for part in material.regions(pairs))
    on = states > 0
    assert {names[k] for k in pairs[:, 1]} == set(PATTERNS)
    assert masks.any((1, 2)).mean() > 0.98
    assert not (masks & ~on).any()
    radius = np.hypot(*np.meshgrid(*[np.linspace(-1, 1, 32)] * 2))
    middle = {k: [radius[mask].mean() for (_, c), mask in zip(pairs, masks, strict=True) if c == k and mask.any()]
              for k in range(len(names)) if names[k] in PATTERNS}  # fmt: skip
    mean = {names[k]: np.mean(values) for k, values in middle.items()}
    assert mean["Center"] < 0.3 < mean["Donut"] < 0.6 < mean["Edge-Loc"] < mean["Edge-Ring"]
    whole = {names[k]: (masks == on).all((1, 2))[pairs[:, 1] == k].all() for k in middle}
    assert {key for key, value in whole.items() if value} == {"Near-full", "Random"}
    others = np.array([(row, k) for row, k in np.ndindex(111, len(names)) if [row, k] not in pairs.tolist()])
    assert not material.regions(others)[0].any()


def test_test_wafers_are_those_of_the_predictions(run):
    loaded = load_task(run)
    material = run_wafers(run, loaded)
    test = Predictions.read(run / "predictions.parquet").select(split="test", view=0)
    assert np.array_equal(material.wafers.index, np.sort(test.index))
    rows = np.array([3, 0, 11])
    with torch.inference_mode():
        logits = loaded.network(material.inputs(rows)).numpy()
    assert np.allclose(logits, material.wafers.logits[rows, 0], atol=1e-4)
    assert material.picture(3).shape != (32, 32)  # the wafer's own dies
    assert set(np.unique(material.picture(3))) == {0, 1, 2}


@pytest.fixture
def fitted(run, tmp_path) -> tuple[Path, Predictor]:
    """A run whose predictor averages two views, sharpens and, by its thresholds, favours the first class."""
    copy = tmp_path / "fitted"
    shutil.copytree(run, copy)
    names = load_task(run).predictor.class_names
    classes = len(names)
    predictor = Predictor(
        Evaluation(tta="hflip", decision="f1"),
        Calibration("temperature", "multiclass", (4.0,) * classes, (0.0,) * classes),
        Thresholds("multiclass", (0.02, *(0.98 / (classes - 1),) * (classes - 1))),
        names,
        "multiclass",
    )
    predictor.write(copy / "predictor.json")
    return copy, predictor


def test_what_is_predicted_is_what_the_runs_predictor_says(fitted):
    """The same wafer reads the same here as in the report: all views, calibrated, by the rule."""
    folder, predictor = fitted
    material = run_wafers(folder, load_task(folder))
    part = wafers(Predictions.read(folder / "predictions.parquet"), "test", "hflip")
    assert np.array_equal(material.probabilities, predictor.probabilities(part.logits))
    assert np.array_equal(material.decisions, predictor(part.logits))
    assert (material.decisions != part.logits[:, 0].argmax(1)).any()
    names = np.array(material.wafers.class_names)
    pairs = chosen_pairs(material, "predicted")
    assert pairs[:, 1].tolist() == material.decisions.tolist()
    text = _texts(material, pairs[:1])[0]
    name = names[material.decisions[0]]
    assert f"predicted: {name}\nheat for {name}, probability {material.probabilities[0, pairs[0, 1]]:.2f}" in text


def test_simulated_wafers_are_seen_in_the_predictors_views(fitted):
    folder, predictor = fitted
    loaded = load_task(folder)
    material = simulated_wafers(loaded, loaded.network, CPU, 16)
    image = material.inputs(np.arange(16))
    with torch.inference_mode():
        logits = torch.stack([loaded.network(image), loaded.network(image.flip(-1))], 1).numpy()
    assert np.allclose(material.wafers.logits, logits, atol=1e-4)
    assert np.allclose(material.probabilities, predictor.probabilities(logits), atol=1e-4)


def test_images_are_explained_but_not_simulated(tmp_path):
    random = np.random.default_rng(0)
    for name in ("bridge", "clean"):
        (tmp_path / "sem" / name).mkdir(parents=True)
        for i in range(10):
            grey = random.integers(0, 256, (24, 24), dtype=np.uint8)
            Image.fromarray(grey).save(tmp_path / "sem" / name / f"{i}.png")
    small = ["data=sem", f"data.path={tmp_path / 'sem'}", "data.canvas=32", "model=wafer_cnn", "model.width=8"]
    run = make_run(tmp_path, *small, "data.num_workers=0")
    result = explain_run(run, count=2)
    assert result.figures == [run / "explanations/test_grad_cam_1.png"]
    assert result.figures[0].is_file()
    assert (result.quality, result.table) == ([], None)
    material = run_wafers(run, load_task(run))
    name = Path(material.wafers.class_names[material.wafers.target[0]])
    assert material.picture(0).shape == (32, 32)
    assert name.name in ("bridge", "clean")
    with pytest.raises(UserError, match="only wafer maps can be simulated"):
        explain_run(run, data="simulated")


def said(target: list, decided: list) -> Material:
    """Wafers with decisions that their logits and probabilities do not show."""
    kind, names = "multilabel" if isinstance(target[0], list) else "multiclass", ("Loc", "Scratch", "none")
    part = Wafers(np.arange(len(target)), np.array(target), np.zeros((len(target), 1, 3), np.float32), names, kind)
    even = np.full((len(target), 3), 1 / 3)
    return Material(part, even, np.array(decided), torch.from_numpy, lambda row: np.zeros((1, 1), np.uint8), "maps")


def test_what_is_explained_on_which_wafer():
    multiclass = said([0, 1, 2], [0, 0, 2])
    assert chosen_pairs(multiclass, "predicted").tolist() == [[0, 0], [1, 0], [2, 2]]
    assert chosen_pairs(multiclass, "true").tolist() == [[0, 0], [1, 1], [2, 2]]
    assert chosen_pairs(multiclass, "Loc").tolist() == [[0, 0], [1, 0]]
    multilabel = said([[1, 1, 0], [0, 0, 0], [0, 1, 0]], [[1, 0, 0], [0, 0, 0], [0, 1, 1]])
    assert chosen_pairs(multilabel, "true").tolist() == [[0, 0], [0, 1], [2, 1]]
    assert chosen_pairs(multilabel, "predicted").tolist() == [[0, 0], [2, 1], [2, 2]]
    assert chosen_pairs(multilabel, "Scratch").tolist() == [[0, 1], [2, 1]]
    with pytest.raises(UserError, match="did you mean Scratch"):
        chosen_pairs(multiclass, "Scrach")


def test_examples_are_spread_over_classes():
    pairs = np.array([(row, 0) for row in range(90)] + [(90, 1), (91, 1), (92, 2)])
    kept = spread(pairs, 8)
    assert np.bincount(kept[:, 1]).tolist() == [5, 2, 1]
    assert kept[:, 1].tolist() == sorted(kept[:, 1])
    assert len(np.unique(kept, axis=0)) == 8
    assert np.array_equal(kept, spread(pairs, 8))
    assert len(spread(pairs, 500)) == len(pairs)


def test_nothing_to_measure_is_said(run):
    loaded = load_task(run)
    material = simulated_wafers(loaded, loaded.network, CPU, 16)
    quality, notes = measured(loaded.network, material, np.empty((0, 2), np.int64), CPU)
    assert quality == []
    assert "try --label true" in notes[0]


def test_the_command_offers_every_method():
    assert {method.value for method in Method} == set(METHODS)
    assert [data.value for data in Data] == ["test", "simulated"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda run: (run / "predictions.parquet").unlink(), "no predictions table"),
        (lambda run: (run / "checkpoints/best.ckpt").unlink(), "no checkpoint"),
        (lambda run: (run / "config.yaml").write_text("data: ["), "damaged"),
        (lambda run: edit(run, "_target_", "builtins.print"), "is not of wafer_lab.data"),
        (lambda run: edit(run, "later_option", 1), "does not fit this"),
        (lambda run: edit(run, "source.seed", 5), "data has changed"),
        (lambda run: edit(run, "seed", 5), "splits the data otherwise"),
        (lambda run: edit(run, "limit", 100), "splits the data otherwise"),
    ],
)
def test_a_run_that_cannot_be_explained(run, tmp_path, change, says):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    change(copy)
    with pytest.raises(UserError, match=says):
        explain_run(copy)
    assert not (copy / "explanations").exists()


def edit(run: Path, key: str, value: object) -> None:
    config = OmegaConf.load(run / "config.yaml")
    OmegaConf.update(config.data, key, value, force_add=True)
    OmegaConf.save(config, run / "config.yaml")


def test_a_config_of_before_an_option_was_there(run, tmp_path):
    """A missing key takes its default."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    config = OmegaConf.load(copy / "config.yaml")
    del config.data["views"]
    OmegaConf.save(config, copy / "config.yaml")
    assert len(run_wafers(copy, load_task(copy)).wafers)


def test_wrong_options_are_user_errors(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another folder with --out"):
        explain_run(run, count=1, out=tmp_path / "file")
    with pytest.raises(UserError, match="must be positive"):
        explain_run(run, count=0)
    with pytest.raises(UserError, match="unknown method 'camera'; choose one of cam"):
        explain_run(run, method="camera")
    with pytest.raises(UserError, match=r"no config\.yaml"):
        command(tmp_path)


def test_no_wafer_of_that_label_is_said(run, monkeypatch):
    material = said([0, 0], [0, 0])
    monkeypatch.setattr("wafer_lab.workflows.explain.run_wafers", lambda *arguments: material)
    with pytest.raises(UserError, match="no test wafer has --label Scratch"):
        explain_run(run, label="Scratch")
