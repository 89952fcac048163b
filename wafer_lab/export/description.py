"""What an exported file says of itself, as JSON in its metadata; needs numpy only to be read."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from wafer_lab.data.rows import Kind
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictor.predictor import Predictor

#: The metadata entry that makes an .onnx file ours.
KEY = "wafer_lab"
_VERSION = 1


@dataclass(frozen=True)
class Description:
    """Where a graph comes from, and how its answers are to be read.

    Attributes:
        kind: What it takes: `maps` of die states, or `images` of grey levels.
        canvas: Side of the network's input, pixels.
        encoding: How states or levels became channels.
        predictor: Classes, views, calibration and decision rule; views and calibration are in the graph already.
        activation: How the output `activation` is to be read: `cam`, `hires_cam`, or None where there is none.
        padding: Pixels that the network adds to the right and the bottom of the canvas, which `activation` covers too.
        record: Of the run: `name`, `split_digest`, `data_fingerprint`, `version`, `metrics`, ...
        made: Of the file: `opset`, `torch`, `wafer_lab`, `int8`, `pruned`, ...
    """

    kind: Kind
    canvas: int
    encoding: str
    predictor: Predictor
    activation: str | None = None
    padding: int = 0
    record: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """What `from_json` reads."""
        values = {**asdict(self), "predictor": self.predictor.to_dict(), "format": _VERSION}
        return json.dumps(values, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Description":
        """The description that `to_json` wrote.

        Raises:
            UserError: The text describes none, or is of a newer wafer_lab.
        """
        try:
            values = json.loads(text)
            version = values.pop("format")
            if not isinstance(version, int) or version < 1:
                raise ValueError(f"format {version!r}")
            if version > _VERSION:
                raise UserError(f"it was written by a newer wafer_lab (format {version}); update this one")
            found = cls(**{**values, "predictor": Predictor.from_dict(values["predictor"])})
            if found.kind not in ("maps", "images") or not isinstance(found.canvas, int) or found.canvas < 1:
                raise ValueError(f"kind {found.kind!r}, canvas {found.canvas!r}")
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise UserError(f"its description is damaged ({type(error).__name__}: {error}); export it again") from None
        return found
