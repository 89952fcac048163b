"""Augmentation of wafer maps, in batches, where the model is. Images are augmented by albumentations instead."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wafer_lab.data.canvas import Maps, Windows, die_noise, random_d4, render_masked
from wafer_lab.errors import UserError
from wafer_lab.processes import WHOLE, Share

Range = Sequence[float]  # the least and the largest


@dataclass(frozen=True)
class MapAugment:
    """What may happen to a wafer map in training. No distortion makes a die state that no fab has.

    Attributes:
        d4: Apply one of the eight rotations and flips, uniformly. No public class depends on the orientation.
        noise: Chance of each die on the wafer to swap pass and fail.
        shift: Largest shift along either axis, in canvas sides.
        crop: Chance to show a square window of the map instead of all of it.
        crop_side: Side of that window in sides of the map, uniform; above 1 shows surroundings. The window lies
            anywhere on the map.
        cutout: Chance to wipe a square out, as if no wafer were there.
        cutout_side: Side of that square in canvas sides, uniform.
        blur: Chance to blur the channels that the network sees with a Gaussian.
        blur_sigma: Its standard deviation in pixels, uniform.
    """

    d4: bool = True
    noise: float = 0.0
    shift: float = 0.0
    crop: float = 0.0
    crop_side: Range = (0.2, 1.0)
    cutout: float = 0.0
    cutout_side: Range = (0.125, 0.333)
    blur: float = 0.0
    blur_sigma: Range = (0.5, 2.0)

    def __post_init__(self) -> None:
        if not 0 <= self.noise < 0.5:
            raise UserError(f"augment.maps.noise={self.noise} must lie in [0, 0.5)")
        for name, most in (("shift", 0.5), ("crop", 1), ("cutout", 1), ("blur", 1)):
            if not 0 <= (value := getattr(self, name)) <= most:
                raise UserError(f"augment.maps.{name}={value} must lie in [0, {most}]")
        for name, most in (("crop_side", 2), ("cutout_side", 1), ("blur_sigma", 100)):
            low, high = getattr(self, name) if len(getattr(self, name)) == 2 else (0.0, 0.0)
            if not 0 < low <= high <= most:
                raise UserError(
                    f"augment.maps.{name}={list(getattr(self, name))} must be the least and the largest, in (0, {most}]"
                )

    def draw(
        self, maps: Maps, index: Tensor, size: int, generator: torch.Generator, share: Share = WHOLE
    ) -> tuple[Tensor, Tensor | None]:
        """Render maps and their masks under random distortions; noise and cutout leave masks as they are.

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
        states, masks = render_masked(maps, index, size, d4, self._windows(count, generator, share))
        if self.noise:
            chance = torch.rand((count, size, size), generator=generator, device=states.device)[share.places]
            states = die_noise(states, self.noise, chance)
        if self.cutout:
            states = states * self._uncut(count, size, generator)[share.places]
        return states, masks

    def soften(self, image: Tensor, generator: torch.Generator, share: Share = WHOLE) -> Tensor:
        """Blur what `draw` drew, once it has been encoded.

        Args:
            image: (B, C, S, S) float32.
            generator: Source of randomness, on the device of the image.
            share: As for `draw`.

        Returns:
            (B, C, S, S) float32, channels_last in memory; `image` itself where `blur` is 0.
        """
        if not self.blur:
            return image
        chance = torch.rand((2, len(image) * share.of), generator=generator, device=image.device)[:, share.places]
        sigma = torch.where(chance[0] < self.blur, _between(self.blur_sigma, chance[1]), 0.0)
        return gaussian_blur(image, sigma)

    def _windows(self, count: int, generator: torch.Generator, share: Share) -> Windows | None:
        """The part of the map that each canvas of this process shows; None where all show all."""
        if not (self.crop or self.shift):
            return None
        chance = torch.rand((6, count), generator=generator, device=generator.device)[:, share.places]
        side = torch.where(chance[0] < self.crop, _between(self.crop_side, chance[1]), 1.0)
        top, left = ((1 - side) * chance[k] + self.shift * (2 * chance[k + 2] - 1) for k in (2, 3))
        return Windows(top, left, side)

    def _uncut(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """(count, size, size) uint8: 0 where a canvas is wiped out, 1 elsewhere."""
        chance = torch.rand((4, count), generator=generator, device=generator.device)
        side = torch.where(chance[0] < self.cutout, _between(self.cutout_side, chance[1]), 0.0)
        middle = (torch.arange(size, device=generator.device) + 0.5) / size
        starts = (chance[2:] * (1 - side))[..., None]
        row, column = (middle >= starts) & (middle < starts + side[:, None])
        kept: Tensor = ~(row[:, :, None] & column[:, None, :])
        return kept.to(torch.uint8)


def gaussian_blur(image: Tensor, sigma: Tensor) -> Tensor:
    """Blur every image with a Gaussian of its own.

    Weights of pixels beyond the border go to those within, so that a constant image stays constant. Both passes are
    matrix products, which are faster than a convolution with a kernel per image.

    Args:
        image: (B, C, S, S) float32.
        sigma: (B,) standard deviations in pixels; 0 leaves an image as it is.

    Returns:
        (B, C, S, S) float32, channels_last in memory.
    """
    pixel = torch.arange(image.shape[-1], device=image.device, dtype=torch.float32)
    squares = (pixel[:, None] - pixel[None]) ** 2
    # A deviation of a hundredth of a pixel gives the neighbour a weight of exp(-5000): none.
    band = torch.exp(-squares / (2 * sigma.clamp(min=0.01)[:, None, None] ** 2))
    band = (band / band.sum(-1, keepdim=True))[:, None]
    return (band @ image @ band.transpose(2, 3)).contiguous(memory_format=torch.channels_last)


def _between(bounds: Range, chance: Tensor) -> Tensor:
    """Uniform values between the least and the largest, of chances that are uniform in [0, 1)."""
    return bounds[0] + (bounds[1] - bounds[0]) * chance
