"""What a fab has in, what it needs out: raw wafers -> canvas -> network -> calibrated probabilities, as one module.

The module is exported as it stands, so everything here is an operation that ONNX has. Resize and encoding are those of
`wafer_lab.data`: a map's are exact; an image's antialiased resize rounds otherwise than Pillow's here and there, by one
grey level.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wafer_lab.data.canvas import ENCODINGS, turn
from wafer_lab.data.rows import Kind
from wafer_lab.data.views import VIEWS
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.models.classifier import Classifier
from wafer_lab.models.heads import LinearHead
from wafer_lab.models.segmenter import Segmenter

#: How a graph says where it looks; None: it does not.
Activation = Literal["cam", "hires_cam"]

# The largest value that readers take in a die map; it is read as 2, as MixedWM38 needs.
_MOST_STATE = 3


class Drawing(NamedTuple):
    """How wafers become network input.

    Attributes:
        kind: `maps` of die states or `images` of grey levels.
        canvas: Side S of the network's input in pixels.
        encoding: Of `wafer_lab.data.canvas.ENCODINGS`.
    """

    kind: Kind
    canvas: int
    encoding: str


class WaferGraph(nn.Module):
    """A trained network with all that stands before and behind it.

    Args:
        network: A `Classifier` or a `Segmenter`, in evaluation mode.
        predictor: Its views and calibration go into the graph; its decision rule does not.
        drawing: How wafers become network input.

    Attributes:
        activation: How the second output is to be read where the network is a classifier; None: there is none.
    """

    table: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, network: nn.Module, predictor: Predictor, drawing: Drawing) -> None:
        super().__init__()
        self.network, self.drawing = network.eval(), drawing
        self.views, self.target_kind = VIEWS[predictor.tta], predictor.target_kind
        calibration = predictor.calibration
        self.register_buffer("table", torch.tensor(ENCODINGS[drawing.encoding]))
        self.register_buffer("scale", torch.tensor(calibration.scale))
        self.register_buffer("bias", torch.tensor(calibration.bias))
        self.activation = activation_of(network, self.table.shape[1], drawing.canvas)

    @property
    def outputs(self) -> list[str]:
        """Names of what `forward` returns: `probabilities`, then `masks` or, where there is one, `activation`."""
        if isinstance(self.network, Segmenter):
            return ["probabilities", "masks"]
        return ["probabilities", *(["activation"] if self.activation else [])]

    def forward(self, wafers: Tensor) -> tuple[Tensor, ...]:
        """Judge wafers of one size.

        Args:
            wafers: (N, H, W) uint8: die states 0 off-wafer, 1 pass, 2 fail (3 counts as 2), or grey levels.

        Returns:
            `probabilities`, (N, C) float32, calibrated; NaN for a wafer that holds another value than a die state.
            Then, of a segmenter, `masks`, (N, C, S, S) float32: each pixel's probability on the canvas. Else, where
            there is one, `activation`, (N, C, h, w) float32: what each place of the last feature map adds to a class's
            logit, of the wafer as it is; summed over the places it is the logit less the head's bias.
        """
        image = self.draw(wafers)
        shown = torch.cat([turn(image, view) for view in self.views]) if len(self.views) > 1 else image
        logits, details = self._said(shown, image.shape[0])
        views = logits.reshape(len(self.views), image.shape[0], logits.shape[1])
        scaled = views * self.scale + self.bias
        probabilities = (scaled.sigmoid() if self.target_kind == "multilabel" else scaled.softmax(-1)).mean(0)
        if self.drawing.kind == "maps":
            wrong = wafers.flatten(1).amax(1, keepdim=True) > _MOST_STATE
            probabilities = torch.where(wrong, torch.nan, probabilities)
        return probabilities, *details

    def draw(self, wafers: Tensor) -> Tensor:
        """Network input: (N, H, W) uint8 -> (N, Ci, S, S) float32."""
        size = self.drawing.canvas
        if self.drawing.kind == "images":
            grey = F.interpolate(wafers[:, None], (size, size), mode="bilinear", antialias=True)
            black, white = self.table[0, :, None, None], self.table[2, :, None, None]
            return grey.float() / 255 * (white - black) + black
        states = wafers.index_select(1, _centres(wafers.shape[1], size)).index_select(
            2, _centres(wafers.shape[2], size)
        )
        return F.embedding(states.int().clamp(max=2), self.table).permute(0, 3, 1, 2)

    def _said(self, shown: Tensor, wafers: int) -> tuple[Tensor, list[Tensor]]:
        """Logits of all views, and masks or activation of the first `wafers` canvases, which are as they are."""
        if isinstance(self.network, Segmenter):
            pixels = self.network(shown)
            return self.network.image_logits(pixels), [pixels[:wafers].sigmoid()]
        assert isinstance(self.network, Classifier)
        if self.activation is None:
            return self.network(shown), []
        features = self.network.encoder.forward_features(shown)
        logits = self.network.head(self.network.encoder.pool(features))
        assert isinstance(self.network.head, LinearHead)
        return logits, [evidence(features[:wafers], self.network.head.linear.weight)]


def _centres(cells: int, size: int) -> Tensor:
    """The cell under the centre of each pixel, as `wafer_lab.data.canvas` has it: (size,) int64.

    In float64, because the exporter would divide whole numbers in float32, which goes wrong on large maps.
    """
    pixel = 2 * torch.arange(size) + 1
    return torch.floor((pixel * cells).double() / (2 * size)).long()


def activation_of(network: nn.Module, in_channels: int, size: int) -> Activation | None:
    """What kind of activation map can be had without gradients, asked of the numbers.

    `cam` where a linear head stands on the mean over positions. `hires_cam` where it stands on the mean and the
    maximum: there the gradient is known in closed form, and HiResCAM of the last map needs none. Else None.
    """
    if not isinstance(network, Classifier) or not isinstance(network.head, LinearHead):
        return None
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, in_channels, size, size, generator=generator)
    try:
        with torch.inference_mode():
            features = network.encoder.forward_features(image)
            pooled = network.encoder.pool(features)
    except UserError:  # tokens have no feature map
        return None
    mean, both = features.mean((2, 3)), torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)
    for kind, expected in (("cam", mean), ("hires_cam", both)):
        if pooled.shape == expected.shape and torch.allclose(pooled, expected, rtol=1e-3, atol=1e-5):
            return kind  # type: ignore[return-value]
    return None


def evidence(features: Tensor, weight: Tensor) -> Tensor:
    """What each place adds to each logit.

    Args:
        features: (N, K, h, w), the last feature map.
        weight: (C, K) of a linear head on the mean, or (C, 2 K) of one on the mean and the maximum.

    Returns:
        (N, C, h, w). Places that share a maximum share its weight, as they share its gradient.
    """
    channels = features.shape[1]
    share = F.conv2d(features, weight[:, :channels, None, None]) / (features.shape[2] * features.shape[3])
    if weight.shape[1] == channels:
        return share
    top = (features == features.amax((2, 3), keepdim=True)).float()
    top = features * top / top.sum((2, 3), keepdim=True)
    return share + F.conv2d(top, weight[:, channels:, None, None])
