"""``wafer-lab data``: from public files to prepared stores, and what is wrong with them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(no_args_is_help=True, help="Prepare, simulate and audit data sets.")


@app.callback()
def data() -> None:
    """Prepare, simulate and audit data sets."""


@app.command()
def prepare(
    src: Annotated[Path, typer.Argument(help="LSWMD.pkl, the MixedWM38 .npz, a .zip of one, or a folder of images.")],
    dest: Annotated[Path, typer.Argument(help="Folder to write the store to.")],
) -> None:
    """Read a public data set once and write it as a store that opens in milliseconds."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from wafer_lab.data.prepare import prepare as write_store
    from wafer_lab.data.readers import open_source
    from wafer_lab.data.store import Store
    from wafer_lab.errors import UserError

    source = open_source(src)
    if isinstance(source, Store):
        raise UserError(f"{src} is a prepared store already; use it as it is")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,} rows"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"Reading {src.name}", total=None)
        store = write_store(
            source, dest, lambda rows: bar.update(task, completed=rows, description="Writing the store")
        )
        bar.update(task, total=len(store), completed=len(store), description="Done")
    typer.echo(f"{dest}: {len(store):,} rows, {len(store.header.class_names)} classes ({store.header.target})")
    for name, value in store.header.notes.items():
        typer.echo(f"  {name.replace('_', ' ')}: {value}")


@app.command()
def simulate(
    dest: Annotated[Path, typer.Argument(help="Folder to write the store to; data.path takes it.")],
    wafers: Annotated[int, typer.Option(min=1, help="How many wafers.")] = 10_000,
    patterns: Annotated[
        Literal["multiclass", "multilabel"],
        typer.Option(help="One pattern per wafer as in WM-811K, or up to four as in MixedWM38."),
    ] = "multiclass",
    seed: Annotated[int, typer.Option(min=0, help="The same wafers for the same seed.")] = 0,
    style: Annotated[
        Literal["textbook", "fab"],
        typer.Option(help="Clean examples, or with what real maps show beside their pattern, to train on for those."),
    ] = "textbook",
) -> None:
    """Write a store of simulated wafer maps, lots and masks included."""
    from wafer_lab.data.prepare import prepare as write_store
    from wafer_lab.data.simulator import Simulator

    store = write_store(Simulator(num_wafers=wafers, target=patterns, seed=seed, style=style), dest)
    typer.echo(f"{dest}: {len(store):,} wafers, {len(store.header.class_names)} classes ({store.header.target})")


@app.command()
def audit(
    src: Annotated[Path, typer.Argument(help="A data set, a prepared store, or a run's folder: its split is judged.")],
    against: Annotated[Path | None, typer.Option(help="Another data set to look for the same wafers in.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.html and audit.json. Default: outputs/audit/NAME.")
    ] = None,
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="Look at unlabelled rows, too.")] = False,
    upright: Annotated[
        bool, typer.Option("--upright", help="Leave out flipped and turned copies: an eighth of the work.")
    ] = False,
) -> None:
    """Find copies, near copies, and labels at odds, in a data set, across its split, or between two sets.

    Exit status 1 where a copy stands on two sides of the split, else 0.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from wafer_lab.evaluation.audit_report import summary
    from wafer_lab.workflows.audit import audit as look_for_twins

    outputs = Path(os.environ.get("WAFER_LAB_OUTPUTS", "outputs"))
    out = outputs / "audit" / src.resolve().name if out is None else out
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:

        def stage(what: str) -> Callable[[int, int], None]:
            bar.console.print(what, markup=False, highlight=False, soft_wrap=True)
            task = bar.add_task(what, total=None)
            return lambda done, total: bar.update(task, completed=done, total=total)

        findings = look_for_twins(src, out, outputs / "cache", against, unlabelled, 1 if upright else 8, stage)
    typer.echo("\n".join([*summary(findings), "", f"report  {out / 'report.html'}", f"data    {out / 'audit.json'}"]))
    if findings.found.leaking:
        raise typer.Exit(1)
