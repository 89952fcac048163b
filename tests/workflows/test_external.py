"""The external test, beside a run's own and for a finished run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from wafer_lab.cli.app import app
from wafer_lab.config.validate import problems
from wafer_lab.data.prepare import prepare
from wafer_lab.data.simulator import Simulator
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.workflows.evaluate import evaluate
from wafer_lab.workflows.fit import fit

RENAMED = "{bars: stripes, speck: null}"


def draw(folder: Path, name: str, kind: str, seed: int) -> Path:
    """An image of stripes or of blobs, of which no two are alike."""
    rng = np.random.default_rng((seed, kind == "stripes"))
    waves = rng.normal(size=(1 if kind == "stripes" else 12, 12)).repeat(4, 1).repeat(48 if kind == "stripes" else 4, 0)
    grey = np.clip(128 + 50 * waves / np.abs(waves).max() + rng.normal(0, 4, (48, 48)), 0, 255)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey.astype(np.uint8)).save(folder / name)
    return folder / name


def images(folder: Path) -> list[Path]:
    """All images of a folder, in the order of a store's rows."""
    return sorted(folder.rglob("*.png"), key=lambda file: file.relative_to(folder).as_posix())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Images to train on, and others' images: new ones, exact copies and one near copy of them, and a class apart."""
    root = tmp_path_factory.mktemp("images")
    own = [draw(root / "own", f"{kind}/{i:02}.png", kind, i) for kind in ("stripes", "blobs") for i in range(30)]
    theirs = root / "theirs"
    for i in range(100, 108):
        draw(theirs, f"bars/{i}.png", "stripes", i)
        draw(theirs, f"Blobs/{i}.png", "blobs", i)
    draw(theirs, "speck/1.png", "blobs", 200)
    for image in own:  # copies of all; those of test images were not seen in training
        shutil.copy(image, theirs / {"stripes": "bars", "blobs": "Blobs"}[image.parent.name] / f"copy_{image.name}")
    relit = np.asarray(Image.open(own[3])) * 0.9 + 9
    Image.fromarray(relit.astype(np.uint8)).save(theirs / "bars" / "near.png")
    return root


def compose_sem(root: Path, *overrides: str):
    from hydra import compose, initialize_config_dir

    from wafer_lab.config.resolvers import register

    register()
    places = [f"paths.outputs={root}", f"paths.run={root}/run", "name=run", "tracking=none", f"data.path={root}/own"]
    small = ["data=sem", "debug=smoke", "model=wafer_cnn", "model.width=4", "augment=none", "figures=false"]
    conf = Path(__file__).resolve().parents[2] / "conf"
    with initialize_config_dir(str(conf), version_base="1.3"):
        return compose("train", overrides=[*places, *small, "evaluation.normal=['STR*']", *overrides])


@pytest.fixture(scope="module")
def tested(folders):
    cfg = compose_sem(folders, f"data.external={folders}/theirs", f"data.external_classes={RENAMED}")
    assert problems(cfg) == []
    return fit(cfg).run_dir


@pytest.fixture
def run(tested, tmp_path):
    return shutil.copytree(tested, tmp_path / "run")


def scores(run: Path) -> dict[str, float]:
    return json.loads((run / "metrics.json").read_text())


def test_external_images_are_judged_beside_the_test(run, folders):
    table = Predictions.read(run / "external.parquet")
    assert set(table.split) == {"external"}
    assert set(table.view.tolist()) == {0, 2}  # the views of the run's own table
    files = images(folders / "theirs")
    kept = [i for i, file in enumerate(files) if file.parent.name != "speck"]
    plain = table.select(view=0)
    assert plain.index.tolist() == kept
    truth = [table.class_names[k] for k in plain.target]
    assert truth == [{"bars": "stripes", "Blobs": "blobs"}[files[i].parent.name] for i in kept]
    found = scores(run)
    right = plain.decisions() == plain.target
    assert found["external/accuracy"] == pytest.approx(right.mean())
    assert found["external/accuracy/low"] <= found["external/accuracy"] <= found["external/accuracy/high"]
    assert {"external/f1_macro", "external/f1/blobs", "external/escape_rate"} <= found.keys()

    own = Predictions.read(run / "predictions.parquet")
    chosen = images(folders / "own")
    test = {chosen[i].read_bytes() for i in own.select(split="test", view=0).index}
    copies = {i for i in kept if files[i].name.startswith("copy") and files[i].read_bytes() not in test}
    twins = json.loads((run / "external.json").read_text())["twins"]
    assert set(twins["exact"]) == copies
    assert len(copies) == 60 - len(test)
    source = folders / "own/stripes/03.png"
    near = [i for i in kept if files[i].name == "near.png" and source.read_bytes() not in test]
    assert twins["near"] == near
    fresh = ~np.isin(plain.index, [*copies, *near])
    assert found["external/unseen/accuracy"] == pytest.approx(right[fresh].mean())


def test_the_report_says_what_was_tested_on(run, folders):
    report = (run / "report.md").read_text()
    count = len(Predictions.read(run / "external.parquet").select(view=0))
    twins = json.loads((run / "external.json").read_text())["twins"]
    assert "| score | test | external | external without twins |" in report
    assert f"| wafers | 12 | {count} | {count - len(twins['exact']) - len(twins['near'])} |" in report
    assert f"{count} images of {folders}/theirs; Blobs is blobs, bars is stripes" in report
    assert "Left out: 1 of speck" in report
    assert f"{len(twins['exact'])} are exact copies and {len(twins['near'])} more near duplicates" in report
    assert "## Classes, external" in report


def test_judging_again_keeps_the_external_test(run):
    before = scores(run)
    evaluate(run, {})
    assert scores(run) == before
    evaluate(run, {"calibration": "none"})
    after = scores(run)
    assert after["external/accuracy"] == before["external/accuracy"]
    assert after["external/nll"] != before["external/nll"]


def test_a_finished_run_is_tested_as_one_that_names_the_data(run, folders):
    before = scores(run)
    for name in ("external.parquet", "external.json"):
        (run / name).unlink()
    evaluate(run, {})
    assert not any(key.startswith("external/") for key in scores(run))
    options = ["--external", f"{folders}/theirs", "--rename", "bars=Stripes", "--rename", "speck="]
    done = CliRunner().invoke(app, ["evaluate", str(run), *options])
    assert done.exit_code == 0, done.output
    assert scores(run) == pytest.approx(before, abs=1e-5)
    assert "external" in done.output.splitlines()[0]
    assert "more near duplicates of images that the run has seen" in done.output


def test_rates_of_wafers_that_are_not_there_are_left_out(run, folders):
    evaluate(run, {}, external=folders / "theirs", renamed={"bars": None, "speck": None})  # blobs alone, all defects
    found = scores(run)
    assert "external/escape_rate" in found
    assert not any("false_alarm_rate" in key for key in found if key.startswith("external/"))
    assert "test/false_alarm_rate" in found


def test_without_the_runs_data_twins_are_not_counted(run, folders):
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(f"{folders}/own", f"{folders}/moved"))
    judgement = evaluate(run, {}, external=folders / "theirs", renamed={"bars": "stripes"})
    assert judgement.external.unseen is None
    assert "were not counted: the run's own data is not at hand" in judgement.external.notes[-1]


def test_mistakes_change_nothing(run, folders):
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    for options, said in [
        (["--external", str(folders / "none")], "there is nothing at"),
        (["--external", f"{folders}/theirs", "--rename", "bar=stripes"], "has no class bar; did you mean bars?"),
        (["--external", f"{folders}/theirs", "--rename", "bars"], "--rename bars is not theirs=ours"),
        (["--rename", "bars=stripes"], "is about the classes of --external"),
    ]:
        error = CliRunner().invoke(app, ["evaluate", str(run), *options]).exception
        assert isinstance(error, UserError)
        assert said in str(error)
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    for damaged in ("{}", "[]", "[" * 100_000):
        (run / "external.json").write_text(damaged)
        with pytest.raises(UserError, match=r"external.json is missing or damaged .*test again: wafer-lab evaluate"):
            evaluate(run, {})


def test_a_table_of_another_split_is_refused(run):
    table = Predictions.read(run / "external.parquet")
    type(table)(**{**vars(table), "split_digest": "other"}).write(run / "external.parquet")
    with pytest.raises(UserError, match="of another split_digest than the run's predictions"):
        evaluate(run, {})


def test_mistakes_are_told_before_training(configured, tmp_path, folders):
    cfg = configured("data=sem", f"data.path={folders}/own", f"data.external={tmp_path}/gone")
    assert [problem.path for problem in problems(cfg)] == ["data.external"]
    cfg = compose_sem(folders, f"data.external={folders}/theirs", "data.external_classes={bars: lines}")
    cfg.paths.run = str(tmp_path / "never")
    with pytest.raises(UserError, match="this run has no class lines for bars"):
        fit(cfg)
    assert not (tmp_path / "never").exists()
    with pytest.raises(UserError, match=r"renames classes of data.external, which is not set"):
        fit(compose_sem(folders, f"data.external_classes={RENAMED}"))


def test_wafer_maps_of_several_labels_test_a_run_of_one(tiny, tmp_path):
    store = prepare(Simulator(160, "multilabel", seed=9), tmp_path / "mixed")
    cfg = tiny(f"data.external={store.folder}", "data.limit=120")
    result = fit(cfg)
    table = Predictions.read(Path(cfg.paths.run) / "external.parquet").select(view=0)
    labels = store.label[table.index]
    assert (labels.sum(1) <= 1).all()
    names = np.array(store.header.class_names)
    truth = [names[row == 1][0] if row.any() else "none" for row in labels]
    assert [table.class_names[k] for k in table.target] == truth
    assert "external/f1_macro" in result.scores
    report = (Path(cfg.paths.run) / "report.md").read_text()
    assert f"{(store.label.sum(1) > 1).sum()} with several labels" in report
    assert "0 are exact copies of wafers that the run has seen, in train or val; near duplicates were not" in report
