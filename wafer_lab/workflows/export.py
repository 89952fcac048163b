"""From a run's folder to one file for the line."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import wafer_lab
from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.data.images import ImageDataModule, image_encoding
from wafer_lab.data.views import TTA
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.predictor.predictor import Predictor, fit_predictor
from wafer_lab.evaluation.views import wafers
from wafer_lab.export.compress import compress
from wafer_lab.export.description import Description
from wafer_lab.export.graph import Drawing, WaferGraph
from wafer_lab.export.onnx_file import OPSET, write_onnx
from wafer_lab.export.wafers import draw
from wafer_lab.models.timm_encoder import TimmEncoder
from wafer_lab.tracking.mlflow_tracker import MLflowTracker
from wafer_lab.tracking.registry import Registered, register
from wafer_lab.workflows.checkpoint import Loaded, load_task
from wafer_lab.workflows.finished import METRICS, TABLE, datamodule_of, read_config, run_id
from wafer_lab.workflows.inference import kind_of
from wafer_lab.workflows.usual import usual_of

#: What is kept of the checkpoint's record; the config stays in the run.
_RECORD = ("split_digest", "data_fingerprint", "version", "run_id")


class Exported(NamedTuple):
    """What an export wrote.

    Attributes:
        file: The .onnx file.
        description: What it says of itself.
    """

    file: Path
    description: Description


def export_run(
    run: Path,
    out: Path,
    tta: TTA | None = None,
    int8: bool = False,
    prune: float | None = None,
    epochs: int = 2,
    bits: int = 32,
) -> Exported:
    """Write a trained network, with all that stands before and behind it, as one .onnx file.

    Args:
        run: A run's folder, or a .ckpt file: then there is no calibration, and the decision is argmax.
        out: The file to write.
        tta: Views to average in the graph; None: those of the run's predictor. Others than those have the predictor
            fitted anew, on the val rows of the run's predictions.
        int8: Compute in integers of 8 bits, calibrated on the run's training wafers.
        prune: Share of the weights to set to zero first, see `wafer_lab.workflows.prune`; None: none.
        epochs: Of fine-tuning after pruning.
        bits: That a weight takes in the file: 32, 16 or 8, see `wafer_lab.export.compress`. Not with `int8`.

    Raises:
        UserError: The run is not whole, the network cannot be exported, or `out` cannot be written.
    """
    loaded, metrics = load_task(run), _metrics(run)
    loaded = loaded._replace(predictor=with_views(run, loaded.predictor, tta))
    made: dict[str, Any] = {}
    datamodule = _data(run, loaded.predictor.tta) if int8 or prune is not None else None
    if prune is not None and datamodule is not None:
        from wafer_lab.workflows.prune import prune_network

        pruned = prune_network(run, loaded, datamodule, prune, epochs)
        loaded, metrics = pruned.loaded, _told(pruned.scores)
        made |= {"pruned": round(pruned.zeros, 4), "epochs": epochs}
    graph = WaferGraph(loaded.network, loaded.predictor, drawing_of(loaded))
    description = describe_run(run, loaded, graph, metrics, made)
    if not int8 and bits == 32:
        write_onnx(graph, description, out)
        return Exported(out, description)
    with TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.onnx"
        write_onnx(graph, description, whole)
        if datamodule is None or not int8:
            return Exported(out, compress(whole, bits, out))
        return Exported(out, _quantised(whole, datamodule, description, out))


def _quantised(whole: Path, datamodule: WaferDataModule, description: Description, out: Path) -> Description:
    """Compute in integers; returns what the new file says of itself."""
    from wafer_lab.export.quantise import quantise

    # The scores are those of the network before its numbers were rounded, and what was usual is so no longer.
    record = {**description.record, "metrics_before_int8": description.record["metrics"], "metrics": {}}
    record.pop("usual", None)
    description = replace(description, record=record, made={**description.made, "int8": True})
    quantise(whole, training_wafers(datamodule), description, out)
    return description


def register_run(run: Path, file: Path, name: str, alias: str | None) -> Registered:
    """Put an exported file of a run into the registry of the store that the run was tracked in.

    A run without tracking goes into the default store of its outputs, or where MLFLOW_TRACKING_URI says.

    Raises:
        UserError: `run` is no folder, or as `wafer_lab.tracking.registry.register`.
    """
    config = read_config(run)
    tracking, outputs = config.get("tracking") or {}, Path(config.get("paths", {}).get("outputs", "outputs"))
    tracker = MLflowTracker(
        tracking.get("uri"),
        tracking.get("experiment", "wafer_lab"),
        tracking.get("artifacts", outputs / "mlartifacts"),
        tracking.get("store", outputs / "mlflow.db"),
    )
    return register(file, tracker, name, alias, run_id(run))


def _data(run: Path, tta: TTA) -> WaferDataModule:
    """The run's data, to be predicted in the views that are deployed."""
    if not run.is_dir():
        raise UserError("--int8 and --prune need the run's training wafers; name the run's folder, not its checkpoint")
    config = read_config(run)
    datamodule = datamodule_of({**config, "data": {**config["data"], "views": tta}}, run)
    datamodule.setup()
    return datamodule


def training_wafers(datamodule: WaferDataModule, count: int = 512) -> Iterator[NDArray[np.uint8]]:
    """Some training wafers on canvases, (B, S, S) uint8, chosen at random."""
    rows = datamodule.split.train
    chosen = np.random.default_rng(0).permutation(len(rows))[:count]
    for places in np.array_split(chosen, max(1, len(chosen) // 64)):
        if isinstance(datamodule, ImageDataModule):
            yield datamodule.canvases[torch.from_numpy(datamodule.first["train"] + places)].numpy()
        else:
            yield np.stack([draw(datamodule.store.map(int(row)), datamodule.canvas) for row in rows[places]])


def with_views(run: Path, predictor: Predictor, tta: TTA | None) -> Predictor:
    """A run's predictor, fitted anew where other views than its own are asked for."""
    if tta is None or tta == predictor.tta:
        return predictor
    if not run.is_dir():
        raise UserError(f"--tta {tta} needs the run's predictions to fit the predictor anew; name the run's folder")
    settings = replace(predictor.settings, tta=tta)
    return fit_predictor(wafers(Predictions.read(run / TABLE), "val", tta), settings).predictor


def drawing_of(loaded: Loaded) -> Drawing:
    """How the run's data module draws its wafers."""
    data = loaded.config.data
    if kind_of(data) == "images":
        return Drawing("images", data.canvas, image_encoding(data.get("encoding", "grey"), data.in_channels))
    return Drawing("maps", data.canvas, data.encoding)


def describe_run(
    run: Path, loaded: Loaded, graph: WaferGraph, metrics: Mapping[str, float], made: Mapping[str, Any]
) -> Description:
    """What an export of a run says of itself.

    Args:
        run: The run's folder or checkpoint.
        loaded: What was read from it.
        graph: What is exported.
        metrics: Its scores.
        made: What else to say of the file.
    """
    encoder = getattr(loaded.network, "encoder", None)
    record = {key: loaded.record[key] for key in _RECORD if loaded.record.get(key) is not None}
    # Of the network as it was trained: pruned, it is sure of other things.
    usual = None if made else usual_of(run, loaded.predictor)
    if usual is not None:
        record["usual"] = usual.to_dict()
    facts = {"opset": OPSET, "torch": torch.__version__, "wafer_lab": wafer_lab.__version__}
    facts["parameters"] = sum(parameter.numel() for parameter in loaded.network.parameters())
    return Description(
        kind=graph.drawing.kind,
        canvas=graph.drawing.canvas,
        encoding=graph.drawing.encoding,
        predictor=loaded.predictor,
        activation=graph.activation,
        padding=encoder.padding if isinstance(encoder, TimmEncoder) else 0,
        record={"name": loaded.config.get("name", run.name), **record, "metrics": dict(metrics)},
        made={**facts, **made},
    )


def _metrics(run: Path) -> dict[str, float]:
    """The run's test scores as they stand in its folder; none of a bare checkpoint."""
    file = run / METRICS
    if not file.is_file():
        return {}
    try:
        return _told(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{file} is damaged ({error}); run wafer-lab evaluate {run}") from None


def _told(scores: Mapping[str, Any]) -> dict[str, float]:
    """Scores of the test wafers as a whole."""
    chosen = {k: v for k, v in scores.items() if k.startswith("test/") and k.count("/") == 1}
    return {name: float(value) for name, value in chosen.items() if isinstance(value, int | float)}
