"""A `WaferGraph` as one .onnx file that says what it is."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wafer_lab.errors import UserError
from wafer_lab.export.description import KEY, Description
from wafer_lab.export.graph import WaferGraph
from wafer_lab.files import replacing

OPSET = 20
#: The largest difference from PyTorch's probabilities that an export may have. Sums in another order make some 1e-5, in
#: badly conditioned networks 1e-4 (benchmarks/export_parity.py); a graph that computes something else makes far more.
TOLERANCE = 1e-3

#: What a graph calls its input.
INPUT = "wafers"
# Other than 0 and 1, which the exporter would take for constants, and other than each other.
_EXAMPLE = (2, 29, 31)
_CHECKED = ((1, 26, 33), (3, 61, 47))


def write_onnx(graph: WaferGraph, description: Description, out: Path) -> None:
    """Export a graph, see that it answers as PyTorch does, and put it in its place.

    Args:
        graph: On the CPU.
        description: What to say of it in the file's metadata.
        out: The .onnx file; written beside and renamed.

    Raises:
        UserError: A package is missing, the network cannot be exported, the answers differ, or `out` cannot be written.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401  # for the check; said before minutes of work, not after
        import onnxscript  # noqa: F401  # what torch exports with
    except ModuleNotFoundError as error:
        raise UserError(f"an export needs the package {error.name}; pip install onnx onnxscript onnxruntime") from None
    model = _exported(graph)
    describe(model, description)
    try:
        with replacing(out) as beside:
            onnx.save(model, beside)
            check_answers(graph, beside)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; free space or choose another file") from None


def _exported(graph: WaferGraph) -> Any:
    """The ONNX model, without what the exporter notes of this machine's source files."""
    shape = dict.fromkeys(range(3), torch.export.Dim.DYNAMIC)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporter's own insides
            program = torch.onnx.export(
                graph,
                (torch.zeros(_EXAMPLE, dtype=torch.uint8),),
                dynamo=True,
                external_data=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=graph.outputs,
                dynamic_shapes=(shape,),
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        name = type(getattr(graph.network, "encoder", graph.network)).__name__
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise UserError(
            f"{name} has an operation that cannot be exported to ONNX ({reason}); use another model"
        ) from error
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]
    for function in model.functions:
        for node in function.node:
            del node.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    return model


def describe(model: Any, description: Description) -> None:
    """Put a description into a model's metadata, in place of the one it may have."""
    kept = [entry for entry in model.metadata_props if entry.key != KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=KEY, value=description.to_json())
    model.producer_name = "wafer_lab"
    model.doc_string = ""


def check_answers(graph: WaferGraph, file: Path) -> None:
    """Compare a file's probabilities with PyTorch's on random wafers of several sizes.

    Raises:
        UserError: They differ by more than `TOLERANCE`.
    """
    from wafer_lab.export.predictor import WaferModel

    model, random = WaferModel(file), np.random.default_rng(0)
    for shape in _CHECKED:
        wafers = random.integers(0, 3, shape, dtype=np.uint8)
        with torch.inference_mode():
            expected = graph(torch.from_numpy(wafers))[0].numpy()
        difference = float(np.abs(model.run(wafers)["probabilities"] - expected).max())
        if not difference <= TOLERANCE:
            raise UserError(
                f"the exported network answers otherwise than PyTorch (probabilities differ by {difference:.2g}); "
                "nothing was written. Please report this model"
            )
