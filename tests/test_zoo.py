"""The models in zoo/: each as its card says, also on the real samples where they are at hand."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from wafer_lab.data.classes import WM811K_CLASSES
from wafer_lab.data.prepare import cached
from wafer_lab.data.readers import open_source
from wafer_lab.data.rows import Rows
from wafer_lab.data.views import VIEWS
from wafer_lab.export import card, zoo
from wafer_lab.export.predictor import WaferModel
from wafer_lab.workflows.finished import datamodule_of
from wafer_lab.workflows.outcome import Gallery

ZOO = Path(__file__).resolve().parents[1] / "zoo"
MODELS = sorted(ZOO.glob("*.onnx"))
SAMPLES = {"mixedwm38": "mixedwm38_sample.npz", "images": "sem_sample"}
DATAMODULES = {"maps": "wafer_lab.data.maps.MapDataModule", "images": "wafer_lab.data.images.ImageDataModule"}
# Pixels of all views to judge: seconds.
ASKED = 800 * 64**2


def test_every_card_has_its_model():
    assert {file.stem for file in ZOO.glob("*.md")} - {"README"} == {file.stem for file in MODELS}


@pytest.mark.parametrize("file", MODELS, ids=lambda file: file.stem)
def test_the_card_is_of_the_file(file):
    content, text = file.read_bytes(), file.with_suffix(".md").read_text(encoding="utf-8")
    facts, said = card.read(file.with_suffix(".md")), WaferModel(file).description
    assert text == card.page(facts)
    assert len(content) == facts["file"]["bytes"] <= zoo.LIMIT
    assert hashlib.sha256(content).hexdigest() == facts["file"]["sha256"]
    assert facts["name"] == file.stem
    assert facts["classes"] == list(said.predictor.class_names)
    assert facts["input"] == {"kind": said.kind, "canvas": said.canvas, "encoding": said.encoding}
    for key, name in (("split_digest", "split_digest"), ("fingerprint", "data_fingerprint")):
        assert facts["data"][key] == said.record[name]
    assert facts["run"]["command"].startswith("python train.py ")
    value, low, high = facts["scores"]["f1_macro"]
    assert 0 < low <= value <= high <= 1
    assert facts["agreement"]["same"] >= 0.98 * facts["agreement"]["wafers"]
    for place in (b"/work/", b"/tmp/", b"/home/", b"/root/"):
        assert place not in content + text.encode()


class Sample:
    """The sample of WM-811K as a source, in the order of the LSWMD.pkl that is made of it."""

    name, kind, target, class_names = "wm811k", "maps", "multiclass", WM811K_CLASSES

    def __init__(self, tool, path):
        self.tool, self.path = tool, path

    def fingerprint(self):
        return "sample"

    def notes(self):
        return {}

    def rows(self):
        maps, fail, _ = self.tool.load(self.path, None, 0.0, 0)
        names = {name: k for k, name in enumerate(WM811K_CLASSES)}
        yield Rows(
            label=np.array([names[f.item()] for f in fail], np.int16),
            height=np.array([m.shape[0] for m in maps], np.int32),
            width=np.array([m.shape[1] for m in maps], np.int32),
            cells=np.concatenate([m.ravel() for m in maps]),
            lot=[""] * len(maps),
        )


@pytest.mark.parametrize("file", MODELS, ids=lambda file: file.stem)
def test_the_scores_are_those_of_the_real_sample(file, real_data, request, stores):
    facts, model = card.read(file.with_suffix(".md")), WaferModel(file)
    data, classes = facts["data"], len(model.class_names)
    if data["name"] == "wm811k":
        store = cached(Sample(request.getfixturevalue("lswmd_tool"), real_data / "wm811k_sample.npz"), stores)
    else:
        store = cached(open_source(real_data / SAMPLES[data["name"]]), stores)
    target = model.predictor.target_kind
    node = {"_target_": DATAMODULES[model.kind], "cache": str(stores), "target": target, "num_classes": classes}
    node |= {"in_channels": 3, "canvas": 8, "encoding": "grey_rgb" if model.kind == "images" else "one_hot"}
    datamodule = datamodule_of({"data": node | data["settings"]}, file, store)
    datamodule.open_and_split()
    assert datamodule.split_digest == data["split_digest"]  # so the test wafers are not those that it was trained on
    test, pixels = datamodule.split.test, model.description.canvas**2 * len(VIEWS[model.predictor.tta])
    chosen = np.random.default_rng(1).permutation(len(test))[: ASKED // pixels]
    picture = Gallery.of(store).picture
    probabilities = model.probabilities([picture(int(row)) for row in test[chosen]])
    said, true = model.predictor.decision(probabilities.astype(float)), datamodule.labels("test")[chosen]
    right = (said.reshape(len(true), -1) == true.reshape(len(true), -1)).all(1)
    told = facts["scores"]["accuracy" if target == "multiclass" else "exact_match"]
    assert abs(right.mean() - told[0]) <= 3.3 * np.sqrt(told[0] * (1 - told[0]) / len(right)) + 1 / len(right)
    if len(chosen) == len(test):
        assert told[1] <= right.mean() <= told[2]


def test_commands_are_told_without_places():
    told = card.recipe(
        "python /somewhere/train.py experiment=x data.path=/data/LSWMD.pkl weights=../w.pth hydra.run.dir=/r +a=b "
        "paths.outputs=o tracking=none 'evaluation.normal=[a b]'"
    )
    assert told == "python train.py experiment=x data.path=LSWMD.pkl weights=w.pth +a=b 'evaluation.normal=[a b]'"
    assert not re.search(r"/", told)
