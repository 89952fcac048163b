"""Every option of conf/model, exported and compared with PyTorch: python benchmarks/export_parity.py [LSWMD.pkl].

The networks are random, but with batch statistics of random wafers and a head scaled so that wafers get different
classes, as the table counts. Wafers are real where a file is named, else simulated, plus random grids of odd sizes;
judged one at a time, in a batch of one size, and in a batch of mixed sizes, and compared with what the canvas code and
the network say in PyTorch. Seconds are those of the export, on the process's CPU clock.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from wafer_lab.data.canvas import Maps, encode, render, turn
from wafer_lab.data.readers import open_source
from wafer_lab.data.simulator import Simulator
from wafer_lab.data.views import VIEWS
from wafer_lab.evaluation.predictor.calibration import Calibration
from wafer_lab.evaluation.predictor.decisions import Argmax
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.export.description import Description
from wafer_lab.export.graph import Drawing, WaferGraph
from wafer_lab.export.onnx_file import write_onnx
from wafer_lab.export.predictor import WaferModel
from wafer_lab.workflows.assemble import build_network
from wafer_lab.workflows.predict import class_logits

CONF = Path(__file__).resolve().parents[1] / "conf"
WAFERS, CANVAS, CLASSES = 48, 32, 5
ODD = [(1, 1), (3, 40), (31, 33), (200, 170), (400, 300)]
DRAWING = Drawing("maps", CANVAS, "one_hot")
LARGE = ("resnet34", "resnet50")  # last, because they take longest


def main() -> None:
    maps = [*real_or_simulated(sys.argv[1:]), *odd()]
    print("| model | map | classes given | probabilities differ by | other class | file, MB | export, s |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    worst = 0.0
    for path in sorted((CONF / "model").glob("*.yaml"), key=lambda path: (path.stem[:8] in LARGE, path.stem)):
        head, kind = ("segmentation", "multilabel") if "unet" in path.stem else ("classification", "multiclass")
        tta = "d4" if path.stem in ("wafer_cnn", "unet") else "none"
        difference, line = compared(path.stem, head, kind, tta, maps)
        worst = max(worst, difference)
        print(line, flush=True)
    print(f"\n{len(maps)} wafers; largest difference {worst:.1e}")


def compared(model: str, head: str, kind: str, tta: str, maps: list[np.ndarray]) -> tuple[float, str]:
    network = random_network(model, head)
    calibration = Calibration("vector", kind, (0.7, 1.1, 0.9, 1.3, 0.8), (0.1, -0.2, 0.0, 0.3, -0.1))
    predictor = Predictor(Evaluation(tta=tta), calibration, Argmax(kind), tuple("ABCDE"), kind)
    expected = said(network, predictor, maps)
    graph = WaferGraph(network, predictor, DRAWING)
    with tempfile.TemporaryDirectory() as folder:
        file, start = Path(folder) / "model.onnx", time.process_time()
        write_onnx(graph, Description(*DRAWING, predictor, graph.activation), file)
        seconds, size = time.process_time() - start, file.stat().st_size / 1e6
        exported = WaferModel(file)
    answers = [
        np.concatenate([exported.probabilities([wafer]) for wafer in maps]),
        exported.probabilities(maps),
        np.concatenate(
            [exported.run(np.stack([wafer, wafer.max() - wafer, wafer]))["probabilities"][:1] for wafer in maps]
        ),
    ]
    difference = max(float(np.abs(answer - expected).max()) for answer in answers)
    other = sum(int((predictor.decision(answer) != predictor.decision(expected)).sum()) for answer in answers)
    shown = {"cam": "CAM", "hires_cam": "HiResCAM", None: "masks" if head == "segmentation" else "none"}
    given = len(np.unique(predictor.decision(expected), axis=0))
    cells = [
        model,
        shown[graph.activation],
        str(given),
        f"{difference:.1e}",
        str(other),
        f"{size:.1f}",
        f"{seconds:.0f}",
    ]
    return difference, f"| {' | '.join(cells)} |"


def random_network(model: str, head: str) -> nn.Module:
    torch.manual_seed(0)
    facts = ["+data.in_channels=3", f"+data.canvas={CANVAS}", f"+data.num_classes={CLASSES}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        network = build_network(compose(overrides=[f"+head={head}", f"+model={model}", *facts]))
    images = encode(torch.randint(0, 3, (32, CANVAS, CANVAS)).to(torch.uint8), "one_hot")
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # statistics of the batches that follow, and nothing of where they began
    with torch.no_grad():
        for _ in range(5):
            network.train()(images)
        layer = network.head.conv if head == "segmentation" else network.head.linear
        layer.bias.zero_()
        logits = class_logits(network, network.eval()(images))
        layer.weight *= 2 / logits.std(0).mean()
        layer.bias.copy_(-logits.mean(0) * 2 / logits.std(0).mean())
    return network


@torch.inference_mode()
def said(network: nn.Module, predictor: Predictor, maps: list[np.ndarray]) -> np.ndarray:
    """Calibrated probabilities as `wafer-lab predict` gets them from a run's folder."""
    ends = np.cumsum([wafer.size for wafer in maps])
    shapes = torch.tensor([wafer.shape for wafer in maps], dtype=torch.int32)
    starts = torch.from_numpy(ends - [wafer.size for wafer in maps])
    ragged = Maps(torch.from_numpy(np.concatenate([wafer.ravel() for wafer in maps])), starts, *shapes.T)
    image = encode(render(ragged, torch.arange(len(maps)), CANVAS), "one_hot")
    views = [class_logits(network, network(turn(image, view)).float()) for view in VIEWS[predictor.tta]]
    return predictor.probabilities(torch.stack(views, 1).numpy())


def real_or_simulated(arguments: list[str]) -> Iterator[np.ndarray]:
    source = open_source(arguments[0]) if arguments else Simulator(num_wafers=WAFERS)
    rows = next(iter(source.rows()))
    sizes = rows.height.astype(np.int64) * rows.width
    starts = np.cumsum(sizes) - sizes
    for i in np.linspace(0, len(rows) - 1, WAFERS).astype(int):
        yield rows.cells[starts[i] : starts[i] + sizes[i]].reshape(rows.height[i], rows.width[i])


def odd() -> Iterator[np.ndarray]:
    random = np.random.default_rng(0)
    for shape in ODD:
        yield random.integers(1, 3, shape).astype(np.uint8)


if __name__ == "__main__":
    main()
