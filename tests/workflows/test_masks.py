import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.csv
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from pycocotools.coco import COCO
from torch import Tensor

from wafer_lab.data.canvas import Maps, render, turn
from wafer_lab.data.classes import MIXEDWM38_CLASSES
from wafer_lab.data.readers import open_source
from wafer_lab.data.simulator import Simulator
from wafer_lab.errors import UserError
from wafer_lab.evaluation.masks import Masks
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.models.encoder import Encoder
from wafer_lab.models.heads import PixelHead
from wafer_lab.models.segmenter import Segmenter
from wafer_lab.workflows.checkpoint import Loaded, load_task
from wafer_lab.workflows.evaluate import evaluate
from wafer_lab.workflows.explain import explain_run
from wafer_lab.workflows.finished import datamodule_of, read_config
from wafer_lab.workflows.fit import fit
from wafer_lab.workflows.inference import predict_source
from wafer_lab.workflows.kfold import kfold
from wafer_lab.workflows.mask_inference import CocoOptions, at_dies, predict_masks
from wafer_lab.workflows.masks import examples
from wafer_lab.workflows.unknown import unknown

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' decoder

CONF = Path(__file__).resolve().parents[2] / "conf"
SEGMENTATION = ["task=segmentation", "data=simulated_masks", "loss=dice_focal"]
SMALL = ["debug=smoke", "data.source.num_wafers=400", "model=wafer_cnn", "model.width=8", "figures=false"]
SMALL += ["evaluation.resamples=100"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run on simulated masks, shared by the tests of this file; two epochs, so that some pixels are called."""
    from hydra import compose, initialize_config_dir

    from wafer_lab.config.resolvers import register

    register()
    root = tmp_path_factory.mktemp("masks")
    places = [f"paths.outputs={root}", f"paths.run={root}/run", "name=run", "tracking=none"]
    options = [*SMALL, *SEGMENTATION, "data.views=hflip", "trainer.max_epochs=2", "optimizer.lr=0.01"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return fit(compose("train", overrides=[*places, *options]))


@pytest.fixture(scope="module")
def network_and_data(finished):
    """The run's network and data module, from its folder."""
    datamodule = datamodule_of(read_config(finished.run_dir), finished.run_dir)
    datamodule.setup()
    return load_task(finished.run_dir).network, datamodule


class Sees(Encoder):
    """One-hot die states as features: off-wafer, pass, fail."""

    num_features = 3

    def forward_features(self, x: Tensor) -> Tensor:
        return x


@pytest.fixture(scope="module")
def exact() -> Loaded:
    """A model whose first mask is the failed dies, whose second is the passed ones, and the last all off the wafer."""
    head = PixelHead(3, len(MIXEDWM38_CLASSES))
    with torch.no_grad():
        head.conv.weight[:] = -1.0
        head.conv.bias[:] = 0.0
        head.conv.weight[0, 2] = head.conv.weight[1, 1] = head.conv.weight[-1, 0] = 3.0
    data = {"_target_": "wafer_lab.data.maps.MapDataModule", "canvas": 64, "encoding": "one_hot"}
    config = OmegaConf.create({"data": data})
    predictor = Predictor.plain(MIXEDWM38_CLASSES, "multilabel")
    return Loaded(Segmenter(Sees(), head).eval(), config, {}, predictor)


def read(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def test_a_run_leaves_its_masks_beside_the_contracts_files(finished, capsys):
    folder = finished.run_dir
    for name in ("metrics.json", "predictions.parquet", "masks.parquet", "predictor.json", "report.md"):
        assert (folder / name).is_file(), name
    metrics = json.loads((folder / "metrics.json").read_text())
    for name in ("iou_macro", "dice_macro", "iou_wafer_macro", "iou/Donut"):
        low, value, high = (metrics[f"test/{name}{end}"] for end in ("/low", "", "/high"))
        assert 0 <= low <= value <= high <= 1
    assert metrics["val/iou_macro"] == pytest.approx(finished.monitored, abs=0.02)
    assert "test/f1_macro" in metrics
    assert "## Masks, test" in (folder / "report.md").read_text()


def test_the_table_counts_what_the_network_draws(finished, network_and_data):
    network, datamodule = network_and_data
    table = Masks.read(finished.run_dir / "masks.parquet")
    assert set(table.split) == {"val", "test"}
    part = table.select("test")
    with torch.inference_mode():
        batches = list(datamodule.batches("test", torch.device("cpu")))
        called = torch.cat([network(batch.image).sigmoid() >= 0.5 for batch in batches]).numpy()
    target = torch.cat([batch.target for batch in batches]).numpy()
    for name, pixels in {"intersection": called & (target == 1), "predicted": called, "true": target == 1}.items():
        assert np.array_equal(getattr(part, name), pixels.sum((2, 3))), name
    assert part.predicted.sum() > 0
    assert np.array_equal(part.index, datamodule.split.test)
    assert np.array_equal(part.lot, datamodule.store.lot[part.index])


def test_the_labels_of_whole_wafers_come_from_the_masks_in_every_view(finished, network_and_data):
    network, datamodule = network_and_data
    batch = next(iter(datamodule.batches("test", torch.device("cpu"))))
    for view in (0, 2):
        part = finished.predictions.select("test", view)
        with torch.inference_mode():
            logits = network.image_logits(network(turn(batch.image, view)))
        np.testing.assert_allclose(part.logits[: len(logits)], logits, atol=1e-5)
        assert np.array_equal(part.target, datamodule.labels("test"))
    assert finished.predictions.target_kind == "multilabel"


def test_the_sheet_shows_what_was_counted(finished, network_and_data):
    network, datamodule = network_and_data
    table = Masks.read(finished.run_dir / "masks.parquet")
    rows = examples(network, datamodule, table)
    test = table.select("test")
    assert len(rows) == (test.true.sum(0) > 0).sum()
    known = {int(row): k for k, row in enumerate(test.index)}
    for example in (one for row in rows for one in row):
        name, row = example.text.partition(",")[0], int(example.text.rpartition(" ")[2])
        place = known[row], table.class_names.index(name)
        assert (example.truth == 1).sum() == test.true[place]
        assert example.predicted.sum() == test.predicted[place]
        assert f"IoU {test.iou[place]:.3f}" in example.text


def test_judged_again_it_says_the_same(finished, tmp_path):
    run = shutil.copytree(finished.run_dir, tmp_path / "run")
    (run / "figures").mkdir(exist_ok=True)
    (run / "figures" / "masks_test.png").write_bytes(b"drawn")
    evaluate(run, {}, tmp_path / "out")
    assert (tmp_path / "out" / "metrics.json").read_text() == (run / "metrics.json").read_text()
    assert (tmp_path / "out" / "figures" / "masks_test.png").read_bytes() == b"drawn"
    other = Masks.read(run / "masks.parquet")
    object.__setattr__(other, "split_digest", "another")
    other.write(run / "masks.parquet")
    with pytest.raises(UserError, match="different split_digest"):
        evaluate(run, {})
    (run / "masks.parquet").unlink()
    with pytest.raises(UserError, match="no table of masks"):
        evaluate(run, {})


def test_masks_are_not_explained(finished):
    with pytest.raises(UserError, match=r"--out masks\.json"):
        explain_run(finished.run_dir)


def test_masks_are_written_at_the_resolution_of_the_dies(exact, tmp_path):
    source = Simulator(30, "multilabel", seed=5, shape=(40, 51))
    told: list[int] = []
    written = predict_masks(exact, source, tmp_path / "masks.json", progress=told.append)
    coco = read(tmp_path / "masks.json")
    (rows,) = source.rows()
    cells = rows.cells.reshape(30, 40, 51)
    assert (written.images, sum(told), len(coco.imgs)) == (30, 30, 30)
    assert [category["name"] for category in coco.cats.values()] == list(MIXEDWM38_CLASSES)
    found = np.zeros((30, 8, 40, 51), bool)
    for annotation in coco.anns.values():
        found[coco.imgs[annotation["image_id"]]["row"], annotation["category_id"] - 1] = coco.annToMask(annotation)
        assert 0.5 < annotation["score"] <= 1
    assert np.array_equal(found[:, 0], cells == 2)
    assert np.array_equal(found[:, 1], cells == 1)
    assert not found[:, 2:].any()  # the last one is off the wafer, where there are no dies


def test_polygons_and_pictures_for_labelling_tools(exact, tmp_path):
    np.save(tmp_path / "lot.npy", np.pad(np.full((9, 11), 2), 1, constant_values=1))
    options = CocoOptions("polygons", 3, tmp_path / "wafers")
    predict_masks(exact, open_source(tmp_path / "lot.npy"), tmp_path / "masks.json", options)
    coco = read(tmp_path / "masks.json")
    fails = next(one for one in coco.anns.values() if one["category_id"] == 1)
    assert isinstance(fails["segmentation"], list)
    assert (fails["area"], fails["bbox"]) == (9 * 11 * 9, [3, 3, 33, 27])
    grey = np.asarray(Image.open(tmp_path / "wafers" / coco.imgs[fails["image_id"]]["file_name"]))
    assert grey.shape == (33, 39)
    assert (grey == grey.max()).sum() == fails["area"]


def test_rows_are_written_as_for_other_models(exact, tmp_path):
    source = Simulator(12, "multilabel", seed=5, shape=(40, 51))
    assert predict_source(exact, source, tmp_path / "out.csv") == 12
    table = pyarrow.csv.read_csv(tmp_path / "out.csv")
    assert table.column_names == ["index", "prediction", *(f"p_{name}" for name in MIXEDWM38_CLASSES), "error"]
    assert table["prediction"].to_pylist() == ["Center+Donut+Random"] * 12  # Random: off the wafer, for this model


@pytest.mark.parametrize("shape", [(64, 64), (26, 40), (1, 63)])
def test_dies_get_back_what_the_canvas_shows_of_them(shape):
    dies = torch.from_numpy(np.random.default_rng(0).integers(0, 3, shape, dtype=np.uint8))
    maps = Maps(dies.flatten(), torch.tensor([0]), torch.tensor([shape[0]]), torch.tensor([shape[1]]))
    canvas = render(maps, torch.tensor([0]), 64).float()
    assert torch.equal(at_dies(canvas, *shape)[0], dies.float())


def test_more_dies_than_pixels_take_values_between():
    across = at_dies(torch.tensor([[[-1.0, 3.0], [-1.0, 3.0]]]), 2, 4)[0]
    assert torch.allclose(across, torch.tensor([-1.0, 0.0, 2.0, 3.0]).expand(2, 4))


@pytest.mark.parametrize(
    ("out", "options", "says"),
    [
        ("x.csv", ["--segmentation", "polygons"], "write them with --out masks.json"),
        ("x.csv", ["--images", "folder"], "write them with --out masks.json"),
        ("x.xlsx", [], r"as .parquet or .csv, masks as .json"),
    ],
)
def test_options_that_do_not_go_together(finished, tmp_path, out, options, says):
    from typer.testing import CliRunner

    from wafer_lab.cli.app import app

    command = ["predict", str(finished.run_dir), str(tmp_path / "none.npy"), "--out", str(tmp_path / out), *options]
    error = CliRunner().invoke(app, command).exception
    assert isinstance(error, UserError)
    assert says in str(error)


def test_the_command_writes_masks(finished, tmp_path):
    from typer.testing import CliRunner

    from wafer_lab.cli.app import app

    np.save(tmp_path / "lot.npy", np.random.default_rng(0).integers(0, 3, (30, 30)))
    out = tmp_path / "masks.json"
    done = CliRunner().invoke(app, ["predict", str(finished.run_dir), str(tmp_path / "lot.npy"), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert done.output.strip().startswith(f"{out}: 1 wafer, {len(read(out).anns)} mask")


def test_a_model_of_classes_draws_no_masks(exact, tmp_path):
    loaded = exact._replace(network=torch.nn.Identity())
    with pytest.raises(UserError, match="draws no masks"):
        predict_masks(loaded, Simulator(5), tmp_path / "masks.json")
    assert not list(tmp_path.iterdir())


def test_folds_are_pooled(tiny):
    result = kfold(tiny(*SEGMENTATION, "data.split=kfold", "data.folds=2", "data.limit=60", "evaluation.resamples=100"))
    table = Masks.read(result.run_dir / "masks.parquet")
    assert np.array_equal(np.sort(table.index), np.unique(result.predictions.index))
    each = [Masks.read(result.run_dir / f"fold_{fold}" / "masks.parquet").select("test") for fold in range(2)]
    pixels = {name: sum(getattr(fold, name).sum(0) for fold in each) for name in ("intersection", "predicted", "true")}
    union = pixels["predicted"] + pixels["true"] - pixels["intersection"]
    seen = union > 0
    assert result.scores["test/iou_macro"] == pytest.approx((pixels["intersection"][seen] / union[seen]).mean())
    assert "folds/iou_macro/mean" in result.scores
    assert "| class | IoU | F1 |" in (result.run_dir / "report.md").read_text()


def test_a_pattern_may_be_left_out(tiny):
    result = unknown(tiny(*SEGMENTATION, "evaluation.resamples=100"), ["Donut"])
    assert {finding.left_out for finding in result.findings} == {"Donut"}
    assert set(Masks.read(result.run_dir / "without_Donut" / "masks.parquet").split) == {"val", "test", "unknown"}
