"""What is exported, as PyTorch computes it, and three networks after their export.

benchmarks/export_parity.py exports every option of conf/model; here is one of residual blocks with attention and
deformable convolutions, and one that draws masks. tests/workflows/test_export.py has the default network, from a run.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from wafer_lab.data.canvas import Maps, encode, render, turn
from wafer_lab.data.images import scale, shrunk
from wafer_lab.evaluation.explanations import cam, hires_cam
from wafer_lab.export.description import Description
from wafer_lab.export.graph import Drawing, WaferGraph
from wafer_lab.export.onnx_file import write_onnx
from wafer_lab.export.predictor import WaferModel
from wafer_lab.export.wafers import draw, enlarge
from wafer_lab.workflows.assemble import build_network
from wafer_lab.workflows.predict import class_logits

CONF = Path(__file__).resolve().parents[2] / "conf"
CANVAS = 32
MAPS = Drawing("maps", CANVAS, "one_hot")
SIZES = [(1, 1), (26, 26), (33, 29), (3, 90), (101, 64)]


def network(model: str, *overrides: str, head: str = "classification") -> nn.Module:
    """A random network for 5 classes that tells wafers apart."""
    from hydra import compose, initialize_config_dir

    facts = ["+data.in_channels=3", f"+data.canvas={CANVAS}", "+data.num_classes=5"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        found = build_network(compose(overrides=[f"+head={head}", f"+model={model}", *facts, *overrides]))
    torch.manual_seed(0)
    images = encode(torch.randint(0, 3, (16, CANVAS, CANVAS)).to(torch.uint8), "one_hot")
    layer = found.head.conv if head == "segmentation" else found.head.linear
    for layer in found.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # statistics of the batches that follow, and nothing of where they began
    with torch.no_grad():
        for _ in range(3):
            found.train()(images)
        layer.bias.zero_()
        logits = class_logits(found, found.eval()(images))
        layer.weight *= 2 / logits.std(0).mean()
        layer.bias.copy_(-logits.mean(0) * 2 / logits.std(0).mean())
    return found


def wafers() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(1, 3, size).astype(np.uint8) for size in SIZES for _ in range(3)]


@torch.inference_mode()
def expected(found: nn.Module, predictor, maps: list[np.ndarray], views=(0,)) -> np.ndarray:
    """What `wafer-lab predict` makes of a run's network."""
    image = torch.cat([encode(drawn(states), "one_hot") for states in maps])
    said = [class_logits(found, found(turn(image, view))) for view in views]
    return predictor.probabilities(torch.stack(said, 1).numpy())


def drawn(states: np.ndarray) -> torch.Tensor:
    shape = [torch.tensor([side], dtype=torch.int32) for side in states.shape]
    return render(
        Maps(torch.from_numpy(states.ravel()), torch.zeros(1, dtype=torch.int64), *shape), torch.zeros(1).long(), CANVAS
    )


@pytest.mark.parametrize("size", [*SIZES, (4000, 4000), (7, 4001)])
def test_maps_are_drawn_as_in_training(size, predictor):
    states = np.random.default_rng(1).integers(0, 3, size).astype(np.uint8)
    graph = WaferGraph(nn.Identity(), predictor(), MAPS)
    assert torch.equal(graph.draw(torch.from_numpy(states[None])), encode(drawn(states), "one_hot"))
    assert np.array_equal(draw(states, CANVAS), drawn(states)[0].numpy())
    assert np.array_equal(draw(draw(states, CANVAS), CANVAS), draw(states, CANVAS))


@pytest.mark.parametrize("encoding", ["grey", "grey_rgb", "imagenet", "inception"])
def test_images_are_drawn_within_one_grey_level(encoding, predictor):
    graph = WaferGraph(nn.Identity(), predictor(), Drawing("images", CANVAS, encoding))
    levels = scale(torch.tensor([[[0, 1]]], dtype=torch.uint8).expand(1, 2, 2), encoding)
    step = float((levels[0, :, 0, 1] - levels[0, :, 0, 0]).max())
    for size in SIZES:
        grey = np.random.default_rng(2).integers(0, 256, size).astype(np.uint8)
        ours = graph.draw(torch.from_numpy(grey[None]))
        theirs = scale(torch.from_numpy(np.stack([shrunk(grey, CANVAS)])), encoding)
        assert float((ours - theirs).abs().max()) <= step * 1.001


def test_views_and_calibration_are_the_predictors(predictor):
    found, asked = network("wafer_cnn", "model.width=4"), predictor(tta="d4")
    graph = WaferGraph(found, asked, MAPS)
    for states in wafers()[::3]:
        with torch.inference_mode():
            said = graph(torch.from_numpy(states[None]))[0].numpy()
        assert np.allclose(said, expected(found, asked, [states], range(8)), atol=1e-6)


def test_a_state_that_is_none_gives_no_answer(predictor):
    graph = WaferGraph(network("wafer_cnn", "model.width=4"), predictor(), MAPS)
    states = torch.ones(3, 9, 9, dtype=torch.uint8)
    states[1, 4, 4], states[2, 0, 0] = 9, 3
    with torch.inference_mode():
        said = graph(states)[0]
    assert said.isnan().any(1).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("model", "method", "known"), [("wafer_cnn", "hires_cam", hires_cam), ("resnet18", "cam", cam)]
)
def test_activation_is_what_the_gradients_say(model, method, known, predictor):
    found = network(model, "model.width=8")
    graph = WaferGraph(found, predictor(), MAPS)
    assert graph.activation == method
    image = torch.cat([encode(drawn(states), "one_hot") for states in wafers()[:4]])
    states = torch.cat([drawn(states) for states in wafers()[:4]])
    with torch.inference_mode():
        evidence = graph(states)[1]
        assert torch.allclose(evidence.sum((2, 3)) + found.head.linear.bias, found(image), atol=1e-4)
    for label in range(5):
        heat = known(found, image, torch.full((4,), label)).numpy()
        for ours, theirs in zip(evidence[:, label].numpy(), heat, strict=True):
            large = enlarge(np.maximum(ours, 0)[None], CANVAS)[0]
            assert np.allclose(large / max(large.max(), 1e-12), theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "overrides", "head", "tta"),
    [
        ("resnet18", ("model.width=8", "model.attention=cbam", "model.deformable=[4]"), "classification", "none"),
        ("unet", ("model.width=4", "model.levels=2"), "segmentation", "hflip"),
    ],
)
def test_an_exported_file_answers_as_pytorch_does(model, overrides, head, tta, predictor, tmp_path):
    found = network(model, *overrides, head=head)
    asked = predictor("multilabel" if head == "segmentation" else "multiclass", tta)
    graph, file, maps = WaferGraph(found, asked, MAPS), tmp_path / "model.onnx", wafers()
    write_onnx(graph, Description(*MAPS, asked, graph.activation), file)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]  # weights inside
    exported, known = WaferModel(file), expected(found, asked, maps, (0, 2) if tta == "hflip" else (0,))
    assert len(np.unique(asked.decision(known), axis=0)) > 1
    for said in (
        exported.probabilities(maps),
        np.concatenate([exported.probabilities([states]) for states in maps]),
        np.concatenate([exported.probabilities(maps[i : i + 3]) for i in range(0, len(maps), 3)]),
    ):
        assert np.abs(said - known).max() < 1e-4
        assert np.array_equal(asked.decision(said), asked.decision(known))
    if head == "segmentation":
        masks = exported.run(maps[3][None], ["masks"])["masks"]
        with torch.inference_mode():
            theirs = found(encode(drawn(maps[3]), "one_hot")).sigmoid().numpy()
        assert np.abs(masks - theirs).max() < 1e-4
    else:
        heat = exported.activation(maps[6])
        assert heat.shape == (5, 33, 29)
        assert heat.min() >= 0
        assert heat.max() == pytest.approx(1)
    assert str(Path(__file__).resolve().parents[2]).encode() not in file.read_bytes()
