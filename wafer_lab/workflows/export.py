"""From a run's folder to one file for the line."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import wafer_lab
from wafer_lab.data.images import image_encoding
from wafer_lab.data.views import TTA
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.predictor.predictor import Predictor, fit_predictor
from wafer_lab.evaluation.views import wafers
from wafer_lab.export.description import Description
from wafer_lab.export.graph import Drawing, WaferGraph
from wafer_lab.export.onnx_file import OPSET, write_onnx
from wafer_lab.models.timm_encoder import TimmEncoder
from wafer_lab.workflows.checkpoint import Loaded, load_task
from wafer_lab.workflows.finished import METRICS, TABLE
from wafer_lab.workflows.usual import usual_of

#: What is kept of the checkpoint's record; the config stays in the run.
_RECORD = ("split_digest", "data_fingerprint", "version", "run_id")


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        file: The .onnx file.
        description: What it says of itself.
    """

    file: Path
    description: Description


def export_run(run: Path, out: Path, tta: TTA | None = None) -> Exported:
    """Write a trained network, with all that stands before and behind it, as one .onnx file.

    Args:
        run: A run's folder, or a .ckpt file: then there is no calibration, and the decision is argmax.
        out: The file to write.
        tta: Views to average in the graph; None: those of the run's predictor. Others than those have the predictor
            fitted anew, on the val rows of the run's predictions.

    Raises:
        UserError: The run is not whole, the network cannot be exported, or `out` cannot be written.
    """
    loaded = load_task(run)
    loaded = loaded._replace(predictor=with_views(run, loaded.predictor, tta))
    graph = WaferGraph(loaded.network, loaded.predictor, drawing_of(loaded))
    description = describe_run(run, loaded, graph)
    write_onnx(graph, description, out)
    return Exported(out, description)


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
    if str(data._target_).endswith("ImageDataModule"):
        return Drawing("images", data.canvas, image_encoding(data.get("encoding", "grey"), data.in_channels))
    return Drawing("maps", data.canvas, data.encoding)


def describe_run(run: Path, loaded: Loaded, graph: WaferGraph, made: Mapping[str, Any] | None = None) -> Description:
    """What an export of a run says of itself.

    Args:
        run: The run's folder or checkpoint.
        loaded: What was read from it.
        graph: What is exported.
        made: What else to say of the file.
    """
    encoder = getattr(loaded.network, "encoder", None)
    record = {key: loaded.record[key] for key in _RECORD if loaded.record.get(key) is not None}
    # Of the network as it was trained; what was quantised or pruned is sure of other things.
    usual = None if made else usual_of(run, loaded.predictor)
    if usual is not None:
        record["usual"] = usual.to_dict()
    versions = {"opset": OPSET, "torch": torch.__version__, "wafer_lab": wafer_lab.__version__}
    return Description(
        kind=graph.drawing.kind,
        canvas=graph.drawing.canvas,
        encoding=graph.drawing.encoding,
        predictor=loaded.predictor,
        activation=graph.activation,
        padding=encoder.padding if isinstance(encoder, TimmEncoder) else 0,
        record={"name": loaded.config.get("name", run.name), **record, "metrics": _metrics(run)},
        made={**versions, **(made or {})},
    )


def _metrics(run: Path) -> dict[str, float]:
    """The run's scores as they stand in its folder; none of a bare checkpoint."""
    file = run / METRICS
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{file} is damaged ({error}); run wafer-lab evaluate {run}") from None
