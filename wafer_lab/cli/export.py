"""``wafer-lab export``: a run as one file for the line."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from wafer_lab.errors import UserError


def export(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a .ckpt file.")],
    out: Annotated[Path | None, typer.Option(help="The .onnx file to write. Default: model.onnx in the run.")] = None,
    tta: Annotated[
        Literal["none", "hflip", "d2", "d4"] | None,
        typer.Option(help="Views to average in the graph. Default: those of the run's predictor."),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Integers of 8 bits, calibrated on the run's training wafers.")
    ] = False,
    prune: Annotated[
        float | None, typer.Option(help="Share of the weights to set to zero, such as 0.5; then fine-tune.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of fine-tuning after --prune.")] = 2,
) -> None:
    """Write a trained model as one .onnx file: raw wafers of any size in, calibrated probabilities out."""
    out = out or (run if run.is_dir() else run.parent) / "model.onnx"
    if out.suffix != ".onnx":
        raise UserError(f"a model is written as .onnx, not '{out.suffix}'; rename --out {out.name}")
    from wafer_lab.workflows.export import export_run

    exported = export_run(run, out, tta, int8, prune, epochs)
    made = exported.description
    shown = {"cam": "CAM", "hires_cam": "HiResCAM of the last feature map", None: "none"}[made.activation]
    typer.echo(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB; input (N, H, W) uint8 {made.kind}; "
        f"{len(made.predictor.class_names)} classes; views {made.predictor.tta}; activation map: {shown}"
    )
