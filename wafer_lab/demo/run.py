"""A trained network as what the demo asks; importing this takes torch."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wafer_lab.errors import UserError
from wafer_lab.evaluation.explanations import explain
from wafer_lab.models.classifier import Classifier
from wafer_lab.workflows.inference import NetworkJudge, drawn_images, drawn_maps


class RunJudge(NetworkJudge):
    """`NetworkJudge` that also says where it looks."""

    def activation(self, wafer: NDArray[Any]) -> NDArray[np.float32] | None:
        """HiResCAM of one wafer for every class, read at each die.

        Args:
            wafer: (H, W) uint8, a map or a grey image.

        Returns:
            (C, H, W) float32 in [0, 1]; None where the network draws masks, or has no feature map.
        """
        if not isinstance(self.network, Classifier):
            return None
        draw = drawn_maps if self.kind == "maps" else drawn_images
        classes = torch.arange(len(self.predictor.class_names), device=self.device)
        images = draw([wafer], self.config, self.device).expand(len(classes), -1, -1, -1)
        try:
            heat = explain(self.network, images, classes, "hires_cam").cpu().numpy()
        except UserError:  # tokens have no feature map
            return None
        canvas = heat.shape[-1]
        rows, columns = ((2 * np.arange(n) + 1) * canvas // (2 * n) for n in wafer.shape)
        return np.asarray(heat[:, rows[:, None], columns], dtype=np.float32)
