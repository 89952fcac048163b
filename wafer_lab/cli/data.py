"""``wafer-lab data``: from public files to prepared stores."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Prepare data sets.")


@app.callback()
def data() -> None:
    """Prepare data sets."""


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
