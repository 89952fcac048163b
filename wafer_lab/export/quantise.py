"""INT8: weights per channel, activations by what they are on training wafers, as QDQ nodes of ONNX.

Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", CVPR 2018,
arXiv:1712.05877, section 3, after training.
"""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.errors import UserError
from wafer_lab.export.description import Description
from wafer_lab.export.onnx_file import INPUT, describe
from wafer_lab.export.predictor import WaferModel
from wafer_lab.files import replacing

# What holds a network's weights; resize, encoding and calibration stay as they are.
_OPERATORS = ["Conv", "Gemm", "MatMul"]


def quantise(file: Path, wafers: Iterable[NDArray[np.uint8]], description: Description, out: Path) -> None:
    """Write an exported file again with integers of 8 bits.

    Weights take 7 of them: without VNNI, x86 adds two products of 8 bits in 16, which would overflow.

    Args:
        file: What `write_onnx` wrote.
        wafers: (N, H, W) uint8 batches of wafers that are like those to come, such as training wafers.
        description: What to say of the new file.
        out: The .onnx file to write; beside, then renamed.

    Raises:
        UserError: A package is missing, or `out` cannot be written.
    """
    try:
        import onnx
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    except ModuleNotFoundError as error:
        raise UserError(f"--int8 needs the package {error.name}; pip install onnx onnxruntime") from None

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, batches: Iterator[NDArray[np.uint8]]) -> None:
            self.batches = batches

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch}

    model = onnx.load(file)
    try:
        with TemporaryDirectory() as folder, replacing(out) as beside:
            whole = Path(folder) / "int8.onnx"
            logging.disable(logging.WARNING)  # of steps that were taken already, or not needed for these graphs
            quantize_static(
                model,
                whole,
                Reader(iter(wafers)),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=_OPERATORS,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=_beside_the_answer(model),
            )
            made = onnx.load(whole)
            describe(made, description)
            onnx.save(made, beside)
            WaferModel(beside)  # what cannot be loaded does not take the place of what can
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; free space or choose another file") from None
    finally:
        logging.disable(logging.NOTSET)


def _beside_the_answer(model: Any) -> list[str]:
    """Names of nodes that the probabilities do not need: activation maps stay exact."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    needed: set[str] = set()
    open_ends = ["probabilities"]
    while open_ends:
        node = made_by.get(open_ends.pop())
        if node is not None and node.name not in needed:
            needed.add(node.name)
            open_ends += node.input
    return [node.name for node in model.graph.node if node.name not in needed]
