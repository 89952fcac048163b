"""The wafer-lab command."""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from wafer_lab.cli import compare, data, evaluate, explain, export
from wafer_lab.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Prepare wafer data and use trained models. Training is python train.py.",
)
app.add_typer(data.app, name="data")
app.command()(evaluate.evaluate)
app.command()(explain.explain)
app.command()(compare.compare)
app.command()(export.export)


class Segmentation(StrEnum):
    """How `wafer_lab.data.coco` writes masks, without importing torch."""

    RLE = "rle"
    POLYGONS = "polygons"


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A run's folder, or a .ckpt file.")],
    input: Annotated[
        Path,
        typer.Argument(
            help="LSWMD.pkl, the MixedWM38 .npz, a prepared store, a folder of images, a .npy map, an image."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="File to write: .parquet or .csv, one row per wafer; .json, the masks as COCO.")
    ],
    segmentation: Annotated[Segmentation, typer.Option(help="Of a .json: how masks are written.")] = Segmentation.RLE,
    images: Annotated[
        Path | None, typer.Option(help="Of a .json: a new folder for the wafers as PNG, for labelling tools.")
    ] = None,
    scale: Annotated[
        int | None, typer.Option(min=1, help="Of a .json: pixels per die. Default: 1, with --images 8.")
    ] = None,
) -> None:
    """Name the defects of every wafer in a file, with the probability of each class; or draw them."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    from wafer_lab.data.readers import open_source

    if out.suffix not in (".parquet", ".csv", ".json"):
        raise UserError(
            f"predictions are written as .parquet or .csv, masks as .json, not '{out.suffix}'; rename --out {out.name}"
        )
    if out.suffix != ".json" and (images or scale or segmentation != Segmentation.RLE):
        raise UserError("--images, --scale and --segmentation are about masks; write them with --out masks.json")
    source = open_source(input)  # before torch is imported: a wrong path is told at once
    from wafer_lab.workflows.checkpoint import load_task
    from wafer_lab.workflows.inference import predict_source

    loaded = load_task(model)
    if not (model / "predictor.json").is_file():
        typer.echo("note: no predictor.json beside this model, so it decides by argmax, uncalibrated", err=True)
    columns = (TextColumn("{task.completed:,} wafers"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        shown = bar.add_task("", total=None)
        told = partial(bar.advance, shown)
        if out.suffix != ".json":
            count, masks = predict_source(loaded, source, out, told), ""
        else:
            from wafer_lab.workflows.mask_inference import CocoOptions, predict_masks

            options = CocoOptions(segmentation.value, scale or (8 if images else 1), images)
            written = predict_masks(loaded, source, out, options, told)
            count, masks = written.images, f", {written.annotations:,} mask{'s' if written.annotations != 1 else ''}"
            if segmentation == Segmentation.POLYGONS and written.holes:
                masks += f"; {written.holes:,} with a hole as run lengths"
    typer.echo(
        f"{out}: {count:,} wafer{'s' if count != 1 else ''}{masks}" + (f"; pictures in {images}" if images else "")
    )


def main() -> None:
    """Run the command; a user's mistake is one message and exit status 2."""
    from wafer_lab.config.entry import user_errors
    from wafer_lab.config.resolvers import register

    register()
    with user_errors():
        app()
