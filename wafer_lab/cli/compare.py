"""``wafer-lab compare``: runs against each other on the test wafers they share."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold them.")],
    score: Annotated[
        str, typer.Option(help="Score to compare by: f1_macro, accuracy, escape_rate, cost, ece, f1/Scratch, ...")
    ] = "f1_macro",
    baseline: Annotated[
        str | None, typer.Option(help="Setting to compare with, or a part of its name. Default: the best on val.")
    ] = None,
    decision: Annotated[
        Literal["argmax", "f1", "cost", "recall"] | None,
        typer.Option(help="Decide all runs by this rule, fitted on val. Default: each as deployed."),
    ] = None,
    tta: Annotated[
        Literal["none", "hflip", "d2", "d4"] | None, typer.Option(help="Average all runs over these views.")
    ] = None,
    calibration: Annotated[
        Literal["none", "temperature", "vector"] | None, typer.Option(help="Calibrate all runs like this.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files. Default: outputs/comparisons/<date>_<time>.")
    ] = None,
    mlflow: Annotated[bool, typer.Option(help="Record the comparison where the runs are recorded.")] = True,
) -> None:
    """Say which setting is better on the test wafers, with intervals and tests.

    Runs that differ in nothing but the seed are one setting.
    """
    from wafer_lab.workflows.compare import compare as compare_runs

    refit = {"decision": decision, "tta": tta, "calibration": calibration}
    compare_runs(runs, score=score, baseline=baseline, refit=refit, out=out, mlflow=mlflow)
