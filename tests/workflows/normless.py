"""A network without batch normalisation: what it says of a wafer does not depend on the batch's other wafers."""

from torch import nn

from wafer_lab.models.encoder import Encoder


class Normless(Encoder):
    def __init__(self, in_channels, width=8):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, width, 5, 2), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, 2), nn.ReLU()
        )
        self.num_features = 2 * width

    def forward_features(self, x):
        return self.layers(x)
