"""``wafer-lab export``: a run as one file for the line."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from wafer_lab.cli.waiting import waiting
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
    epochs: Annotated[int | None, typer.Option(min=1, help="Of fine-tuning after --prune. Default: 2.")] = None,
    weight_bits: Annotated[
        Literal["32", "16", "8"],
        typer.Option(help="That a weight takes in the file; sums stay in 32. 8: a quarter of the size."),
    ] = "32",
    zoo: Annotated[
        str | None,
        typer.Option(help="Make it this model of the checkout's zoo, at most 5 MB, with a card, in place of --out."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Of --zoo: where the run's data lies, if it has moved.")] = None,
    note: Annotated[
        list[str] | None, typer.Option(help="Of --zoo: a sentence for the card, such as weights' licence. Repeatable.")
    ] = None,
    register: Annotated[str | None, typer.Option(help="Also make it a version of this model in MLflow.")] = None,
    alias: Annotated[str | None, typer.Option(help="Of --register: points to this version from now on.")] = None,
) -> None:
    """Write a trained model as one .onnx file: raw wafers of any size in, calibrated probabilities out."""
    if zoo is not None:
        given = {"--out": out, "--tta": tta, "--int8": int8, "--prune": prune, "--register": register}
        given |= {"--weight-bits": weight_bits != "32"}
        _add(run, zoo, data, note or [], [name for name, value in given.items() if value])
        return
    if data or note:
        raise UserError("--data and --note are about the card of a model of the zoo; name that with --zoo NAME")
    out = out or (run if run.is_dir() else run.parent) / "model.onnx"
    if out.suffix != ".onnx":
        raise UserError(f"a model is written as .onnx, not '{out.suffix}'; rename --out {out.name}")
    if alias and not register:
        raise UserError("--alias names a version of a registered model; say which with --register NAME")
    if epochs and prune is None:
        raise UserError("--epochs are those of fine-tuning after pruning; say how much to prune with --prune SHARE")
    if int8 and weight_bits != "32":
        raise UserError("--int8 rounds weights, and what comes out of layers; leave out --weight-bits")
    waiting("loading PyTorch and exporting")
    from wafer_lab.workflows.export import export_run

    exported = export_run(run, out, tta, int8, prune, epochs or 2, int(weight_bits))
    made = exported.description
    shown = {"cam": "CAM", "hires_cam": "HiResCAM of the last feature map", None: "none"}[made.activation]
    typer.echo(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB; input (N, H, W) uint8 {made.kind}; "
        f"{len(made.predictor.class_names)} classes; views {made.predictor.tta}; activation map: {shown}"
    )
    if register:
        _register(run, out, register, alias)


def _register(run: Path, out: Path, name: str, alias: str | None) -> None:
    from wafer_lab.tracking.mlflow_tracker import masked
    from wafer_lab.workflows.export import register_run

    found = register_run(run, out, name, alias)
    address = f"models:/{found.name}@{alias}" if alias else f"models:/{found.name}/{found.version}"
    typer.echo(
        f"registered as version {found.version}; to serve it:\n"
        f"  MLFLOW_TRACKING_URI={masked(found.uri)} mlflow models serve -m {address} --env-manager local"
    )


def _add(run: Path, name: str, data: Path | None, notes: list[str], unused: list[str]) -> None:
    if unused:
        raise UserError(
            f"--zoo decides itself how a model is written; leave out {', '.join(unused)} (for other views, first run "
            f"wafer-lab evaluate {run} --tta d4)"
        )
    waiting("loading PyTorch, exporting, and asking the file about test wafers")
    from wafer_lab.workflows.zoo import add_to_zoo

    added = add_to_zoo(run, name, data, notes)
    file, said = added.facts["file"], added.facts["agreement"]
    typer.echo(
        f"{added.file}: {file['bytes'] / 1e6:.1f} MB, {file['weight_bits']} bits a weight; of {said['wafers']:,} test "
        f"wafers {said['same']:,} named as by the run, {said['right']:,} rightly; card: {added.file.with_suffix('.md')}"
    )
