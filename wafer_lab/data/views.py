"""The symmetries of the square under which wafers may be shown to a model, by name.

A view is numbered as in `wafer_lab.data.canvas`: bit 0 flips rows, bit 1 flips columns, bit 2 then transposes.
"""

from typing import Literal

TTA = Literal["none", "hflip", "d2", "d4"]
#: Name of a group of symmetries -> its views, the untouched one first. `d2`: flips and the half turn; `d4`: all
#: rotations and flips.
VIEWS: dict[str, tuple[int, ...]] = {"none": (0,), "hflip": (0, 2), "d2": (0, 1, 2, 3), "d4": tuple(range(8))}
