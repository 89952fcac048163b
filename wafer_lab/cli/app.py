"""The wafer-lab command."""

from pathlib import Path
from typing import Annotated

import typer

from wafer_lab.cli import compare, data, evaluate, explain
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


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A run's folder, or a .ckpt file.")],
    input: Annotated[
        Path,
        typer.Argument(
            help="LSWMD.pkl, the MixedWM38 .npz, a prepared store, a folder of images, a .npy map, an image."
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write, .parquet or .csv: one row per wafer.")],
) -> None:
    """Name the defects of every wafer in a file, with the probability of each class."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    from wafer_lab.data.readers import open_source

    if out.suffix not in (".parquet", ".csv"):
        raise UserError(f"predictions are written as .parquet or .csv, not '{out.suffix}'; rename --out {out.name}")
    source = open_source(input)  # before torch is imported: a wrong path is told at once
    from wafer_lab.workflows.checkpoint import load_task
    from wafer_lab.workflows.inference import predict_source

    loaded = load_task(model)
    if not (model / "predictor.json").is_file():
        typer.echo("note: no predictor.json beside this model, so it decides by argmax, uncalibrated", err=True)
    columns = (TextColumn("{task.completed:,} wafers"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        shown = bar.add_task("", total=None)
        count = predict_source(loaded, source, out, lambda done: bar.update(shown, advance=done))
    typer.echo(f"{out}: {count:,} wafer{'s' if count != 1 else ''}")


def main() -> None:
    """Run the command; a user's mistake is one message and exit status 2."""
    from wafer_lab.config.entry import user_errors
    from wafer_lab.config.resolvers import register

    register()
    with user_errors():
        app()
