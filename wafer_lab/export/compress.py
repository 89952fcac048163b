"""Weights in 16 or 8 bits, sums in 32: a smaller file of the same graph.

The file holds rounded weights and the steps that make float32 of them. onnxruntime takes these steps once, when it
opens the file, so a wafer takes as long as before, and nothing is rounded on its way through the network.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.errors import UserError
from wafer_lab.export.description import Description
from wafer_lab.export.onnx_file import describe
from wafer_lab.export.predictor import WaferModel
from wafer_lab.files import replacing

# Smaller weights, among them biases and most heads, stay as they are: they take no room.
_SMALLEST = 4096


def compress(file: Path, bits: int, out: Path) -> Description:
    """Write an exported file again with rounded weights.

    Args:
        file: What `wafer_lab.export.onnx_file.write_onnx` wrote.
        bits: As in `round_weights`.
        out: The .onnx file to write; beside, then renamed.

    Returns:
        What the new file says of itself.

    Raises:
        UserError: `out` cannot be written.
    """
    import onnx

    model, said = onnx.load(file), WaferModel(file).description
    round_weights(model, bits)
    said = replace(said, made={**said.made, "weight_bits": bits})
    describe(model, said)
    try:
        with replacing(out) as beside:
            onnx.save(model, beside)
            WaferModel(beside)  # what cannot be loaded does not take the place of what can
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; free space or choose another file") from None
    return said


def round_weights(model: Any, bits: int) -> None:
    """Round the weights of a graph in place.

    Args:
        model: An ONNX model with float32 weights.
        bits: 16: half precision. 8: integers times a step, which is 1/127 of the largest weight of each output channel.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph, steps = model.graph, []
    axes = _output_axes(graph)
    for tensor in list(graph.initializer):
        if tensor.name not in axes or tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _SMALLEST:
            continue
        name, weight = tensor.name, numpy_helper.to_array(tensor)
        graph.initializer.remove(tensor)
        small = f"{name}_{bits}"
        if bits == 16:
            graph.initializer.append(numpy_helper.from_array(weight.astype(np.float16), small))
            steps.append(helper.make_node("Cast", [small], [name], to=TensorProto.FLOAT))
            continue
        whole, step = _rounded(weight, axes[name])
        graph.initializer.append(numpy_helper.from_array(whole, small))
        graph.initializer.append(numpy_helper.from_array(step, f"{name}_step"))
        steps.append(helper.make_node("Cast", [small], [f"{small}_float"], to=TensorProto.FLOAT))
        steps.append(helper.make_node("Mul", [f"{small}_float", f"{name}_step"], [name]))
    nodes = [*steps, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _output_axes(graph: Any) -> dict[str, int]:
    """Of each weight of a layer, the axis of its output channels."""
    axes: dict[str, int] = {}
    for node in graph.node:
        if node.op_type == "Conv":
            axes[node.input[1]] = 0
        elif node.op_type == "Gemm":
            transposed = any(value.name == "transB" and value.i for value in node.attribute)
            axes[node.input[1]] = 0 if transposed else 1
        elif node.op_type == "MatMul":
            axes[node.input[1]] = -1
    return axes


def _rounded(weight: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Integers and the step of each output channel, which broadcasts over them."""
    others = tuple(k for k in range(weight.ndim) if k != axis % weight.ndim)
    largest = np.abs(weight).max(others, keepdims=True)
    step = np.where(largest > 0, largest, 1) / np.float32(127)
    return np.rint(weight / step).astype(np.int8), step.astype(np.float32)
