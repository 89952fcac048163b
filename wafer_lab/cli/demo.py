"""``wafer-lab demo``: a trained model in the browser."""

import signal
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from wafer_lab.cli.waiting import waiting
from wafer_lab.errors import UserError
from wafer_lab.export.zoo import located


def demo(
    model: Annotated[
        Path,
        typer.Argument(help="A run's folder, a .ckpt file, an exported .onnx file, or a model that is here: zoo:NAME."),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on. 0.0.0.0: everybody in the network may look and upload.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 7860,
) -> None:
    """Show in the browser what a model says of single wafers and of files.

    Nothing is fetched from elsewhere, and nothing is sent there. Uploads are deleted when the server ends.
    """
    model = located(model)
    if not model.exists():
        raise UserError(f"there is no model at {model}; name a run's folder, a .ckpt file or an exported .onnx file")
    if find_spec("gradio") is None:
        raise UserError("the demo needs the package gradio; pip install wafer-lab[demo]")
    waiting("loading gradio and the model")
    from wafer_lab.demo.app import bound, serve
    from wafer_lab.demo.model import open_model

    # As Ctrl-C, so that uploads are deleted.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    with bound(host, port) as listening, suppress(KeyboardInterrupt):
        serve(lambda: open_model(model), listening, lambda address: typer.echo(f"{address} shows {model}; Ctrl-C ends"))
