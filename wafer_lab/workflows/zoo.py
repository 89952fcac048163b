"""From a run's folder to a model of the zoo, with a card that tells what the run's files say."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.views import wafers
from wafer_lab.export import card, zoo
from wafer_lab.export.compress import compress
from wafer_lab.export.predictor import WaferModel
from wafer_lab.files import replacing
from wafer_lab.workflows.export import export_run
from wafer_lab.workflows.finished import FACTS, METRICS, TABLE, datamodule_of, read_config
from wafer_lab.workflows.outcome import Gallery

#: Test wafers on which the file is compared with the run.
COMPARED = 1000
# Of the data's settings, those that say which wafers were trained on.
_SPLIT = (
    "split", "val", "test", "group", "seed", "fold", "folds", "label_fraction", "train_without", "labelled", "limit",
    "leave_out",
)  # fmt: skip
_RUN = ("started", "duration", "hardware", "git_revision")


class Added(NamedTuple):
    """A new model of the zoo.

    Attributes:
        file: The .onnx file; the card lies beside it.
        facts: What the card says.
    """

    file: Path
    facts: dict[str, Any]


def add_to_zoo(run: Path, name: str, data: Path | None = None, notes: Sequence[str] = ()) -> Added:
    """Write a run's model, with the most exact weights that fit, and its card into the zoo; both replace older ones.

    Args:
        run: The run's folder.
        name: What the model is called.
        data: Where the run's data lies now; None: where it lay.
        notes: Sentences to add to the card.

    Raises:
        UserError: The run or its data is not whole, or the network is too large.
    """
    name = zoo.checked_name(name)
    if not run.is_dir():
        raise UserError(f"a model of the zoo is made of a run's folder, and {run} is none")
    config, metrics, made = read_config(run), _json(run / METRICS), _json(run / FACTS)
    if data is not None:
        if config["data"].get("source"):
            raise UserError(f"the data of {run} is simulated, so it lies nowhere; leave out --data")
        config = {**config, "data": {**config["data"], "path": str(data)}}
    table, datamodule = Predictions.read(run / TABLE), datamodule_of(config, run)
    datamodule.open_and_split()
    if datamodule.split_digest != table.split_digest:
        raise UserError(
            f"the data at {config['data'].get('path')} is not what {run} was trained on; name that as --data"
        )
    out = zoo.folder() / f"{name}.onnx"
    with TemporaryDirectory() as folder:
        bits = _write_small(run, small := Path(folder) / out.name)
        model = WaferModel(small)
        facts = {
            "name": name,
            "file": {"bytes": small.stat().st_size, "sha256": _sha256(small), "weight_bits": bits},
            **_described(model, config),
            "data": _data(datamodule, config),
            "run": {"command": card.recipe(made.get("command", "")), **{key: made[key] for key in _RUN if key in made}},
            "scores": card.chosen_scores(metrics),
            "agreement": _agreement(model, datamodule, table),
            "notes": list(notes),
        }
        try:
            with replacing(out) as beside:
                shutil.copyfile(small, beside)
        except OSError as error:
            raise UserError(f"cannot write {out}: {error.strerror}; free space or set WAFER_LAB_ZOO") from None
    card.write(out.with_suffix(".md"), facts)
    return Added(out, facts)


def _write_small(run: Path, out: Path) -> int:
    """Export with the most bits a weight that fit."""
    whole = out.with_name("whole.onnx")
    export_run(run, whole)
    for bits in (32, 16, 8):
        if bits == 32:
            shutil.copyfile(whole, out)
        else:
            compress(whole, bits, out)
        if out.stat().st_size <= zoo.LIMIT:
            return bits
    raise UserError(
        f"the network takes {out.stat().st_size / 1e6:.1f} MB at 8 bits a weight, and a model of the zoo at most "
        f"{zoo.LIMIT / 1e6:.0f} MB; train a narrower one, such as model.width=32"
    )


def _described(model: WaferModel, config: Mapping[str, Any]) -> dict[str, Any]:
    said, predictor = model.description, model.predictor.to_dict()
    network = {key: value for key, value in config["model"].items() if key != "in_channels"}
    return {
        "input": {"kind": said.kind, "canvas": said.canvas, "encoding": said.encoding},
        "classes": list(model.class_names),
        "predictor": {key: predictor["settings"][key] for key in ("tta", "calibration", "decision")},
        "model": {**network, "parameters": said.made["parameters"], "weights": _named(config.get("weights"))},
    }


def _data(datamodule: WaferDataModule, config: Mapping[str, Any]) -> dict[str, Any]:
    """Which wafers the model was made with, and how to find them again."""
    counts = {part: len(getattr(datamodule.split, part)) for part in ("train", "val", "test")}
    chosen = {key: config["data"][key] for key in _SPLIT if key in config["data"]}
    chosen["labelled"] = _named(chosen.get("labelled"))
    return {
        "name": datamodule.store.header.name,
        "fingerprint": datamodule.fingerprint,
        "split_digest": datamodule.split_digest,
        **counts,
        "settings": chosen,
    }


def _agreement(model: WaferModel, datamodule: WaferDataModule, table: Predictions) -> dict[str, int]:
    """On how many test wafers the file decides as the run, and is right."""
    test = wafers(table, "test", model.predictor.tta)
    test = test.take(np.sort(np.random.default_rng(0).permutation(len(test))[:COMPARED]))
    picture = Gallery.of(datamodule.store).picture
    said = model.predictor.decision(model.probabilities([picture(int(row)) for row in test.index]).astype(np.float64))
    expected = model.predictor(test.logits)
    whole = (len(test), -1)
    same = (said.reshape(whole) == expected.reshape(whole)).all(1)
    right = (said.reshape(whole) == test.target.reshape(whole)).all(1)
    return {"wafers": len(test), "same": int(same.sum()), "right": int(right.sum())}


def _named(file: Any) -> str | None:
    """A file, such as pretrained weights, without the folder that it lay in."""
    return None if file is None else Path(str(file)).name


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _json(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} is missing or damaged ({error}); name the folder of one finished run, or run wafer-lab evaluate "
            f"{file.parent}"
        ) from None
