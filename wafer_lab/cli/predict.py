"""``wafer-lab predict``: what a trained model says of any wafers."""

import hashlib
import signal
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from wafer_lab.cli.waiting import waiting
from wafer_lab.errors import UserError
from wafer_lab.export.zoo import located

if TYPE_CHECKING:
    from wafer_lab.data.rows import Source
    from wafer_lab.data.store import Store
    from wafer_lab.workflows.labelling import Judge


T = TypeVar("T")


class Segmentation(StrEnum):
    """How `wafer_lab.data.coco` writes masks, without importing torch."""

    RLE = "rle"
    POLYGONS = "polygons"


def predict(
    model: Annotated[
        Path,
        typer.Argument(help="A run's folder, a .ckpt file, an exported .onnx file, or a model that is here: zoo:NAME."),
    ],
    input: Annotated[
        Path,
        typer.Argument(
            help="LSWMD.pkl, the MixedWM38 .npz, a prepared store, a folder of images, a .npy map, an image."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="File to write: .parquet or .csv, one row per wafer; .json, the masks as COCO. With --watch, a folder."
        ),
    ],
    watch: Annotated[
        bool, typer.Option("--watch", help="INPUT is a folder: label files as they appear there, until Ctrl-C.")
    ] = False,
    segmentation: Annotated[Segmentation, typer.Option(help="Of a .json: how masks are written.")] = Segmentation.RLE,
    images: Annotated[
        Path | None, typer.Option(help="Of a .json: a new folder for the wafers as PNG, for labelling tools.")
    ] = None,
    scale: Annotated[
        int | None, typer.Option(min=1, help="Of a .json: pixels per die. Default: 1, with --images 8.")
    ] = None,
) -> None:
    """Name the defects of every wafer in a file, with the probability of each class; or draw them.

    A wafer that cannot be read is reported in its row, and the others are judged. Stopped half-way, the same command
    goes on where it was.
    """
    if out.suffix != ".json" and (images or scale or segmentation != Segmentation.RLE):
        raise UserError("--images, --scale and --segmentation are about masks; write them with --out masks.json")
    model = located(model)
    if not model.exists():
        raise UserError(f"there is no model at {model}; name a run's folder, a .ckpt file or an exported .onnx file")
    if watch:
        _watch(model, input, out)
        return
    if out.suffix not in (".parquet", ".csv", ".json"):
        raise UserError(
            f"predictions are written as .parquet or .csv, masks as .json, not '{out.suffix}'; rename --out {out.name}"
        )
    from wafer_lab.data.readers import open_source

    source = open_source(
        input, tolerant=out.suffix != ".json"
    )  # before torch is imported: a wrong path is told at once
    if out.suffix == ".json":
        _masks(model, source, out, segmentation, images, scale)
    else:
        _table(model, source, out)


def _table(model: Path, source: "Source | Store", out: Path) -> None:
    from wafer_lab.workflows.labelling import label_source

    judge = _judge(model)
    done = _with_progress(lambda told: label_source(judge, source, out, told, _key(model, source)))
    notes = [f"{done.kept:,} kept from a run that was stopped"] if done.kept else []
    notes += [f"{done.faults:,} could not be judged, see the column error"] if done.faults else []
    typer.echo("; ".join([f"{out}: {_wafers(done.wafers)}", *notes]))


def _watch(model: Path, folder: Path, results: Path) -> None:
    from wafer_lab.workflows.watching import watch

    def told(file: Path, outcome: str) -> None:
        typer.echo(f"{file.relative_to(folder)}: {outcome}")

    judge = _judge(model)
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))  # service managers end with it
    typer.echo(f"watching {folder}, writing tables into {results}; Ctrl-C ends", err=True)
    try:
        watch(judge, folder, results, told)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on with what is new", err=True)


def _masks(
    model: Path, source: "Source | Store", out: Path, segmentation: Segmentation, images: Path | None, scale: int | None
) -> None:
    if model.suffix == ".onnx":
        raise UserError("masks as COCO are written from a run's folder; name that, or write .parquet or .csv")
    from wafer_lab.workflows.checkpoint import load_task
    from wafer_lab.workflows.mask_inference import CocoOptions, predict_masks

    loaded, options = load_task(model), CocoOptions(segmentation.value, scale or (8 if images else 1), images)
    _note_plain(model)
    written = _with_progress(lambda told: predict_masks(loaded, source, out, options, told))
    masks = f"{written.annotations:,} mask{'s' if written.annotations != 1 else ''}"
    if segmentation == Segmentation.POLYGONS and written.holes:
        masks += f"; {written.holes:,} with a hole as run lengths"
    pictures = f"; pictures in {images}" if images else ""
    typer.echo(f"{out}: {_wafers(written.images)}, {masks}{pictures}")


def _judge(model: Path) -> "Judge":
    """The model; an exported one is read without torch."""
    if model.suffix == ".onnx":
        from wafer_lab.export.predictor import WaferModel

        return WaferModel(model)
    waiting("loading PyTorch and the model")
    from wafer_lab.workflows.checkpoint import load_task
    from wafer_lab.workflows.inference import NetworkJudge

    judge = NetworkJudge(load_task(model))
    _note_plain(model)
    return judge


def _note_plain(model: Path) -> None:
    if not (model / "predictor.json").is_file():
        typer.echo("note: no predictor.json beside this model, so it decides by argmax, uncalibrated", err=True)


def _key(model: Path, source: "Source | Store") -> str:
    """What the answers depend on: the model's files and the source."""
    files = [model / "checkpoints" / "best.ckpt", model / "predictor.json"] if model.is_dir() else [model]
    digest = hashlib.blake2b(source.fingerprint().encode(), digest_size=16)
    for file in files:
        digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()


def _with_progress(work: Callable[[Callable[[int], None]], T]) -> T:
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.completed:,} wafers"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        return work(partial(bar.advance, bar.add_task("", total=None)))


def _wafers(count: int) -> str:
    return f"{count:,} wafer{'s' if count != 1 else ''}"
