"""``wafer-lab explain``: where a trained network looks."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from wafer_lab.cli.waiting import waiting
from wafer_lab.errors import UserError


class Method(StrEnum):
    """The methods of `wafer_lab.evaluation.explanations`, without importing torch."""

    GRAD_CAM = "grad_cam"
    GRAD_CAM_PP = "grad_cam_pp"
    CAM = "cam"
    HIRES_CAM = "hires_cam"


class Data(StrEnum):
    """What to look at."""

    TEST = "test"
    SIMULATED = "simulated"


def explain(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    method: Annotated[Method, typer.Option(help="How the heat of the figures is made.")] = Method.HIRES_CAM,
    data: Annotated[
        Data, typer.Option(help="The run's test wafers, or simulated ones, on which the heat is measured too.")
    ] = Data.TEST,
    count: Annotated[int, typer.Option(min=1, help="Examples to draw, spread over the classes.")] = 16,
    label: Annotated[str, typer.Option(help="What to explain: predicted, true or the name of a class.")] = "predicted",
    out: Annotated[Path | None, typer.Option(help="Folder to write to. Default: explanations, in RUN.")] = None,
    wafers: Annotated[int, typer.Option(min=1, help="How many wafers to simulate.")] = 1600,
) -> None:
    """Draw where a trained network looks, and say in numbers how well that points at simulated defects."""
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run} is no run's folder: it has no config.yaml; name a folder that train.py made")
    waiting("loading PyTorch and explaining")
    from wafer_lab.workflows.explain import explain_run, markdown

    result = explain_run(run, method.value, data.value, count, label, out, wafers)
    if result.quality:
        typer.echo(markdown(result.quality) + "\n")
    for note in result.notes:
        typer.echo(f"note: {note}")
    for figure in result.figures:
        typer.echo(f"figure  {figure}")
    if result.table is not None:
        typer.echo(f"table   {result.table}")
