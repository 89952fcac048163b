"""The pages and the server. Importing this takes gradio."""

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Read when gradio is imported: nobody is told that it is used.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.middleware import Middleware

from wafer_lab.demo.answer import answer
from wafer_lab.demo.batch import EVERY, Answers, judge_file, listing, summary, together
from wafer_lab.demo.examples import simulated_examples
from wafer_lab.demo.guard import Guard
from wafer_lab.demo.model import DemoModel
from wafer_lab.demo.page import CSS, answer_page, error_page, legend, waiting_page
from wafer_lab.demo.reading import read_wafer
from wafer_lab.errors import UserError

# Of one file: LSWMD.pkl has 2.1 GB.
_MOST_UPLOADED = "4gb"
# Seconds between looks for uploads to delete, and the age at which they are.
_CLEANING = (600, 3600)
_UPLOAD_HEIGHT = 130
_ONE = "Choose a file or an example."
_MANY = "Choose a file; every wafer in it is judged. Several .npy maps or images can be chosen together."


def build(model: DemoModel, folder: Path) -> gr.Blocks:
    """The pages of a model.

    Args:
        model: What is asked.
        folder: Where tables are kept for download.
    """
    kind = model.judge.kind
    told = f"A model of {len(model.class_names)} classes of {'wafer maps' if kind == 'maps' else 'images'}"
    pages: gr.Blocks = gr.Blocks(title=f"{model.name}, wafer_lab", analytics_enabled=False, delete_cache=_CLEANING)
    with pages:
        gr.Markdown(f"# {model.name}\n{told}, trained with wafer_lab. Nothing leaves the machine that serves it.")
        with gr.Tab("One wafer"):
            _one_wafer(model)
        with gr.Tab("Batch"):
            _batch(model, folder)
    return pages


def _one_wafer(model: DemoModel) -> None:
    maps = model.judge.kind == "maps"
    examples = simulated_examples(model.predictor.target_kind) if maps else {}
    with gr.Row():
        upload = gr.File(
            label="Map: .npy, .png, .pkl, .npz" if maps else "Image",
            height=_UPLOAD_HEIGHT,
            elem_id="upload",
            min_width=260,
        )
        with gr.Column(min_width=260, visible=maps):
            row = gr.Number(0, label="Row, where the file holds several wafers", precision=0, minimum=0, elem_id="row")
            again = gr.Button("Judge this row", elem_id="again")
    picked = gr.Radio(list(examples), label="Or a simulated wafer, one per class", visible=maps, elem_id="examples")
    if maps:
        gr.HTML(legend())
    said = gr.HTML(waiting_page(_ONE), elem_id="answer")

    def of_file(file: str | None, row: float | None) -> tuple[str, None]:
        """Judge an upload, and take back the choice of an example."""
        if file is None:
            return waiting_page(_ONE), None
        path = Path(file)
        try:
            found = answer(model, read_wafer(path, int(row or 0), model.judge.kind))
        except UserError as error:
            return error_page(str(error)), None
        return answer_page(found, model.judge.kind, model.method, path.name), None

    def of_example(name: str) -> tuple[str, None]:
        """Judge an example, and take back the upload."""
        return answer_page(answer(model, examples[name]), "maps", model.method, f"A simulated wafer of {name}"), None

    shared: dict[str, Any] = {"api_visibility": "private", "show_progress_on": said}
    gr.on([upload.upload, row.submit, again.click], of_file, [upload, row], [said, picked], **shared)
    upload.clear(lambda: waiting_page(_ONE), None, said, **shared)
    picked.input(of_example, picked, [said, upload], **shared)


def _batch(model: DemoModel, folder: Path) -> None:
    kept = gr.State(None, delete_callback=_forget)
    upload = gr.File(
        label="What wafer-lab predict reads", height=_UPLOAD_HEIGHT, file_count="multiple", elem_id="batch-upload"
    )
    totals = gr.HTML(waiting_page(_MANY), elem_id="totals")
    with gr.Column(visible=False) as below:
        download = gr.DownloadButton("Download all rows (.csv)", variant="primary", elem_id="download")
        with gr.Row(elem_id="filters"):
            name = gr.Dropdown(_answers(model), value=EVERY, label="Class", elem_id="class-filter")
            least = gr.Slider(0, 1, 0, step=0.01, label="Probability at least", elem_id="least")
            errors = gr.Checkbox(False, label="Only rows with errors", elem_id="only-errors")
        table = gr.HTML("", elem_id="table")
    filters = [name, least, errors]

    def nothing(page: str) -> tuple[Any, ...]:
        return None, page, gr.update(visible=False), gr.update(value=None), ""

    def judged(files: list[str] | None, before: Answers | None, *chosen: Any, progress: Any) -> tuple[Any, ...]:
        """Judge what was uploaded, in place of what was judged before."""
        _forget(before)
        if not files:
            return nothing(waiting_page(_MANY))
        place = Path(tempfile.mkdtemp(dir=folder))
        done = 0

        def told(count: int) -> None:
            nonlocal done
            done += count
            progress((done, None), desc="Judging", unit="wafers")

        try:
            batch = judge_file(model, together([Path(file) for file in files], place), place, told)
        except UserError as error:
            shutil.rmtree(place)
            return nothing(error_page(str(error)))
        button = gr.update(value=str(batch.table))
        return batch, summary(batch), gr.update(visible=True), button, listing(batch, *chosen)

    def with_progress(files: Any, before: Any, *chosen: Any, progress: Any = gr.Progress()) -> tuple[Any, ...]:  # noqa: B008 - gradio looks for it there
        return judged(files, before, *chosen, progress=progress)

    def look(batch: Answers | None, *chosen: Any) -> str:
        return listing(batch, *chosen) if batch else ""

    shared: dict[str, Any] = {"api_visibility": "private"}
    outputs = [kept, totals, below, download, table]
    gr.on(
        [upload.upload, upload.clear, upload.delete],
        with_progress,
        [upload, kept, *filters],
        outputs,
        show_progress_on=totals,
        **shared,
    )
    gr.on([name.input, least.release, errors.input], look, [kept, *filters], table, **shared)


def _answers(model: DemoModel) -> list[str]:
    """What the filter offers."""
    names = [EVERY, *model.class_names]
    return names if "none" in names or model.predictor.target_kind == "multiclass" else [*names, "none"]


def _forget(batch: Answers | None) -> None:
    """Delete the table of a batch that nobody looks at any more."""
    if batch is not None:
        shutil.rmtree(batch.table.parent, ignore_errors=True)


def application(model: DemoModel, folder: Path, address: str) -> FastAPI:
    """The pages as an ASGI application, which refuses what `Guard` says.

    Gradio's own `launch` is not used: it asks its server through whatever proxy the machine has, and prints.

    Args:
        model: What is asked.
        folder: Where tables are kept for download.
        address: The IP address that the server listens on.
    """
    theme = gr.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    options: dict[str, Any] = {
        "path": "/",
        "footer_links": [],
        "run_history": False,
        "show_error": False,
        "max_file_size": _MOST_UPLOADED,
        "ssr_mode": False,
        "mcp_server": False,
        "enable_monitoring": False,
        "theme": theme,
        "css": CSS,
    }

    # Where no event loop runs, gradio makes some and never closes them.
    async def mounted() -> FastAPI:
        guarded = FastAPI(openapi_url=None, middleware=[Middleware(Guard, address=address)])
        pages: FastAPI = gr.mount_gradio_app(guarded, build(model, folder), **options)
        return pages

    return asyncio.run(mounted())


def server_config(pages: FastAPI) -> uvicorn.Config:
    """How the pages are served: quietly, and without waiting for browsers that stay connected at the end."""
    return uvicorn.Config(pages, log_level="warning", timeout_graceful_shutdown=1)


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket: taken before anything slow, so that a port in use is told at once.

    Raises:
        UserError: Somebody else has the port, or there is no such address here.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]  # Python repeats the address there
        raise UserError(f"cannot listen on {host}:{port} ({reason}); choose another --port or --host") from None
    with listening:
        yield listening


def serve(load: Callable[[], DemoModel], listening: socket.socket, told: Callable[[str], None]) -> None:
    """Load a model and serve its pages until Ctrl-C. What was uploaded is deleted at the end.

    Args:
        load: Opens the model.
        listening: From `bound`.
        told: Told the address.
    """
    model = load()
    with tempfile.TemporaryDirectory(prefix="wafer-lab-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        host, port = listening.getsockname()[:2]
        server = uvicorn.Server(server_config(application(model, Path(folder), host)))
        told(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        server.run(sockets=[listening])
