"""Augmentation of wafer maps, in batches, where the model is. Images are augmented by albumentations instead."""

from dataclasses import dataclass

import torch
from torch import Tensor

from wafer_lab.data.canvas import Maps, die_noise, random_d4, render_masked
from wafer_lab.errors import UserError
from wafer_lab.processes import WHOLE, Share


@dataclass(frozen=True)
class MapAugment:
    """What may happen to a wafer map in training.

    Attributes:
        d4: Apply one of the eight rotations and flips, uniformly. No public class depends on the orientation.
        noise: Chance of each die on the wafer to swap pass and fail.
    """

    d4: bool = True
    noise: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.noise < 0.5:
            raise UserError(f"augment.maps.noise={self.noise} must lie in [0, 0.5)")

    def draw(
        self, maps: Maps, index: Tensor, size: int, generator: torch.Generator, share: Share = WHOLE
    ) -> tuple[Tensor, Tensor | None]:
        """Render maps and their masks under random distortions; die noise leaves masks as they are.

        Args:
            maps: The maps.
            index: (B,) int64 positions in `maps`.
            size: Side of the canvas.
            generator: Source of randomness, on the device of the maps.
            share: What `index` is of a batch. Chance is drawn for all of it, so that a wafer is distorted alike
                whichever process draws it.

        Returns:
            (B, size, size) uint8 die states and (B, size, size) int16 mask bits, or None where the maps have none.
        """
        count = len(index) * share.of
        d4 = random_d4(count, generator)[share.places] if self.d4 else None
        states, masks = render_masked(maps, index, size, d4)
        if self.noise:
            chance = torch.rand((count, size, size), generator=generator, device=states.device)[share.places]
            states = die_noise(states, self.noise, chance)
        return states, masks
