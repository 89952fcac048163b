"""``wafer-lab evaluate``: a finished run under other views, calibration, decisions or costs."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from wafer_lab.cli.waiting import waiting
from wafer_lab.errors import UserError


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    tta: Annotated[
        Literal["none", "hflip", "d2", "d4"] | None, typer.Option(help="Average over views, of those the table holds.")
    ] = None,
    calibration: Annotated[
        Literal["none", "temperature", "vector"] | None, typer.Option(help="How probabilities are calibrated.")
    ] = None,
    decision: Annotated[
        Literal["argmax", "f1", "cost", "recall"] | None,
        typer.Option(help="Most probable; thresholds for macro F1; least expected cost; bounded escape rate."),
    ] = None,
    cost_ratio: Annotated[float | None, typer.Option(help="What an escape costs, in false alarms.")] = None,
    wrong_defect_cost: Annotated[float | None, typer.Option(help="What naming the wrong defect costs.")] = None,
    cost_matrix: Annotated[
        Path | None, typer.Option(help="CSV of costs: a row per true class, a column per decided class, no heading.")
    ] = None,
    max_escape_rate: Annotated[float | None, typer.Option(help="What --decision recall allows, such as 0.01.")] = None,
    normal: Annotated[list[str] | None, typer.Option(help="A class that is no defect; may be repeated.")] = None,
    coverage: Annotated[float | None, typer.Option(help="Of the conformal prediction sets, such as 0.9.")] = None,
    min_count: Annotated[int | None, typer.Option(help="Classes with fewer val wafers are not tuned.")] = None,
    resamples: Annotated[int | None, typer.Option(help="Bootstrap resamples behind every interval.")] = None,
    external: Annotated[
        Path | None, typer.Option(help="Also test the model on this data set: any file or folder that is read.")
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(help="theirs=ours: what a class of --external is called here; theirs= leaves it out. Repeatable."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to. Default: the run's own folder.")] = None,
) -> None:
    """Fit a run's predictor anew on its val wafers, judge it on test, and write its report again.

    What is not given stays as it was when the run was made. Needs neither the model nor a GPU, but for --external.
    """
    changes: dict[str, Any] = {
        "tta": tta,
        "calibration": calibration,
        "decision": decision,
        "cost_ratio": cost_ratio,
        "wrong_defect_cost": wrong_defect_cost,
        "cost_matrix": _read_matrix(cost_matrix) if cost_matrix else None,
        "max_escape_rate": max_escape_rate,
        "normal": tuple(normal) if normal else None,
        "coverage": coverage,
        "min_count": min_count,
        "resamples": resamples,
    }
    given = {key: value for key, value in changes.items() if value is not None}
    if cost_matrix and given.keys() & {"cost_ratio", "wrong_defect_cost"}:
        raise UserError("a cost matrix says all costs; leave out --cost-ratio and --wrong-defect-cost")
    if given.keys() & {"cost_ratio", "wrong_defect_cost"}:
        given["cost_matrix"] = None  # in place of the run's own
    waiting("fitting the predictor, intervals and figures")
    from wafer_lab.workflows.evaluate import evaluate as evaluate_run
    from wafer_lab.workflows.outcome import summary

    judgement = evaluate_run(run, given, out, external, _renamed(rename or []))
    typer.echo("\n".join(summary(out or run, judgement)))


def _renamed(pairs: list[str]) -> dict[str, str | None]:
    """`theirs=ours` and `theirs=` as a mapping; a class of theirs may hold `=` itself, one of ours does not."""
    wrong = [pair for pair in pairs if not pair.rpartition("=")[0]]
    if wrong:
        raise UserError(f"--rename {wrong[0]} is not theirs=ours; write their name, =, and the run's name or nothing")
    return {theirs: ours or None for theirs, _, ours in (pair.rpartition("=") for pair in pairs)}


def _read_matrix(path: Path) -> list[list[float]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [[float(cell) for cell in line.split(",")] for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no table of numbers ({error}); write a row per true class, no heading") from None
