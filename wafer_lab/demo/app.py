"""The pages and the server. Importing this takes gradio."""

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Read when gradio is imported. Nobody is told that it is used.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gradio as gr
import uvicorn
from fastapi import FastAPI

from wafer_lab.demo.answer import answer
from wafer_lab.demo.batch import EVERY, HEADERS, SHOWN, Batch, filtered, judge_file, summary
from wafer_lab.demo.examples import simulated_examples
from wafer_lab.demo.model import DemoModel
from wafer_lab.demo.page import CSS, answer_page, error_page, waiting_page
from wafer_lab.demo.reading import legend_text, read_wafer
from wafer_lab.errors import UserError

_MOST_UPLOADED = "4gb"
# Seconds between looks for uploads to delete, and the age at which they are.
_CLEANING = (600, 3600)
_INTERNAL: Any = "private"


def build(model: DemoModel) -> gr.Blocks:
    """The pages of a model."""
    with gr.Blocks(title=f"wafer_lab: {model.name}", analytics_enabled=False, delete_cache=_CLEANING) as pages:
        gr.Markdown(f"# {model.name}\nWhat a model that was trained with wafer_lab says of your wafers.")
        with gr.Tab("One wafer"):
            _one_wafer(model)
        with gr.Tab("Batch"):
            _batch(model)
    return pages


def _one_wafer(model: DemoModel) -> None:
    maps = model.judge.kind == "maps"
    examples = simulated_examples(model.predictor.target_kind) if maps else {}
    what = "a map (.npy, .png), LSWMD.pkl or the MixedWM38 .npz" if maps else "an image"
    choices = list(examples)
    with gr.Row():
        upload = gr.File(label=f"Your wafer: {what}", height=150, elem_id="upload", min_width=260)
        with gr.Column(min_width=260):
            row = gr.Number(0, label="Row, where the file holds several wafers", precision=0, minimum=0, visible=maps)
            again = gr.Button("Judge this row", visible=maps, elem_id="again")
    picked = gr.Radio(choices, label="Or a simulated wafer, one per class", visible=maps, elem_id="examples")
    if maps:
        gr.Markdown(f"A picture of a map has one colour per die state: {legend_text()}.", elem_classes="legend")
    said = gr.HTML(waiting_page("Choose a file or an example."), elem_id="answer")

    def of_file(file: str | None, row: float | None) -> tuple[str, None]:
        if file is None:
            return waiting_page("Choose a file or an example."), None
        path = Path(file)
        try:
            wafer = read_wafer(path, int(row or 0), model.judge.kind)
            found = answer(model, wafer)
        except UserError as error:
            return error_page(str(error)), None
        return answer_page(found, model.judge.kind, model.method, path.name), None

    def of_example(name: str) -> tuple[str, None]:
        found = answer(model, examples[name])
        return answer_page(found, "maps", model.method, f"A simulated wafer of {name}"), None

    gr.on([upload.upload, row.submit, again.click], of_file, [upload, row], [said, picked], api_visibility=_INTERNAL)
    picked.input(of_example, picked, [said, upload], api_visibility=_INTERNAL)


def _batch(model: DemoModel) -> None:
    kept = gr.State(None, delete_callback=_forget)
    upload = gr.File(
        label="A file of wafers: anything that wafer-lab predict reads", height=150, elem_id="batch-upload"
    )
    totals = gr.HTML(waiting_page("Choose a file; every wafer in it is judged."), elem_id="totals")
    download = gr.DownloadButton("Download all rows (.csv)", interactive=False, elem_id="download")
    with gr.Row():
        name = gr.Dropdown([EVERY, *_answers(model)], value=EVERY, label="Class", elem_id="class-filter")
        least = gr.Slider(0, 1, 0, step=0.01, label="Probability at least", elem_id="least")
        errors = gr.Checkbox(False, label="Only rows with errors", elem_id="only-errors")
    counted = gr.Markdown("", elem_id="counted")
    kinds: Any = ["number", "str", "str", "str", "str"]
    table = gr.Dataframe(
        headers=list(HEADERS),
        datatype=kinds,
        type="array",
        interactive=False,
        label="Answers",
        elem_id="table",
        wrap=True,
    )
    filters = [name, least, errors]

    def judged(file: str | None, before: Batch | None, *chosen: Any, progress: Any = gr.Progress()) -> tuple[Any, ...]:  # noqa: B008 - how gradio is asked for it
        _forget(before)
        if file is None:
            return (
                None,
                waiting_page("Choose a file; every wafer in it is judged."),
                gr.update(interactive=False),
                [],
                "",
            )
        folder = Path(tempfile.mkdtemp(prefix="batch-"))
        done = 0

        def told(count: int) -> None:
            nonlocal done
            done += count
            progress((done, None), desc="Judging", unit="wafers")

        try:
            batch = judge_file(model, Path(file), folder, told)
        except UserError as error:
            shutil.rmtree(folder)
            return None, error_page(str(error)), gr.update(interactive=False, value=None), [], ""
        button = gr.update(interactive=True, value=str(batch.table))
        return batch, summary(batch), button, *_shown(batch, *chosen)

    def look(batch: Batch | None, *chosen: Any) -> tuple[list[list[Any]], str]:
        return _shown(batch, *chosen) if batch else ([], "")

    outputs = [kept, totals, download, table, counted]
    upload.upload(judged, [upload, kept, *filters], outputs, api_visibility=_INTERNAL)
    upload.clear(judged, [upload, kept, *filters], outputs, api_visibility=_INTERNAL)
    gr.on([name.input, least.release, errors.input], look, [kept, *filters], [table, counted], api_visibility=_INTERNAL)


def _answers(model: DemoModel) -> list[str]:
    """What wafers can be called."""
    names = model.class_names
    return [*names] if "none" in names or model.predictor.target_kind == "multiclass" else [*names, "none"]


def _shown(batch: Batch, name: str, least: float, only_errors: bool) -> tuple[list[list[Any]], str]:
    found = filtered(batch, name, least, only_errors)
    first = f", the first {SHOWN:,} are shown" if found.count > SHOWN else ""
    return found.rows, f"{found.count:,} of {batch.wafers:,} rows{first}."


def _forget(batch: Batch | None) -> None:
    """Delete the table of a batch that nobody looks at any more."""
    if batch is not None:
        shutil.rmtree(batch.table.parent, ignore_errors=True)


def application(model: DemoModel) -> FastAPI:
    """The pages as an ASGI application."""
    theme = gr.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    return gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        build(model),
        "/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=_MOST_UPLOADED,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=theme,
        css=CSS,
    )


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket: taken first, so that a port in use is told at once.

    Raises:
        UserError: Somebody else has the port, or there is no such address here.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot listen on {host}:{port} ({reason}); choose another --port or --host") from None
    with listening:
        yield listening


def serve(load: Callable[[], DemoModel], listening: socket.socket, told: Callable[[str], None]) -> None:
    """Load a model and serve its pages until Ctrl-C. What is uploaded is deleted at the end.

    Args:
        load: Opens the model.
        listening: From `bound`.
        told: Told the address.
    """
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="wafer-lab-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        tempfile.tempdir = folder
        try:
            server = uvicorn.Server(uvicorn.Config(application(load()), log_level="warning"))
            host, port = listening.getsockname()[:2]
            told(f"http://{f'[{host}]' if ':' in host else host}:{port}")
            server.run(sockets=[listening])
        finally:
            tempfile.tempdir = before
            del os.environ["GRADIO_TEMP_DIR"]
