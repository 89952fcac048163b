import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wafer_lab.demo.answer import answer
from wafer_lab.demo.page import answer_page
from wafer_lab.evaluation.predictor.predictor import Predictor

pytest.importorskip("gradio")


class Images:
    """Says the same of every image, and that its upper half speaks for it."""

    kind = "images"
    predictor = Predictor.plain(("bridge", "open"), "multiclass")

    def probabilities(self, wafers):
        return np.array([[0.2, 0.8]] * len(wafers))

    def activation(self, wafer):
        heat = np.zeros((2, *wafer.shape), np.float32)
        heat[:, : len(wafer) // 2] = 1
        return heat


def blocks_of(model, folder):
    """The pages that are served."""
    from wafer_lab.demo.app import application

    routes = application(model, folder, "127.0.0.1").routes
    [mount] = [route for route in routes if hasattr(getattr(route, "app", None), "get_blocks")]
    return mount.app.get_blocks()


def test_serving_says_one_line_and_leaves_no_upload(model, monkeypatch, capsys):
    from wafer_lab.demo.app import bound, serve

    monkeypatch.setenv("GRADIO_TEMP_DIR", "before")
    seen = []

    def run(server, sockets):
        seen.append((Path(os.environ["GRADIO_TEMP_DIR"]), sockets[0].getsockname()))
        (seen[0][0] / "upload.npy").write_bytes(b"x")

    monkeypatch.setattr("uvicorn.Server.run", run)
    lines = []
    with bound("127.0.0.1", 0) as listening:
        serve(lambda: model, listening, lines.append)
    [(folder, address)] = seen
    assert lines == [f"http://127.0.0.1:{address[1]}"]
    assert address[0] == "127.0.0.1"
    assert not folder.exists()
    assert capsys.readouterr().out == ""


def test_a_model_of_images_has_no_examples_and_no_rows(model, tmp_path):
    config = blocks_of(replace(model, judge=Images(), usual=None), tmp_path).get_config_file()
    parts = {part["props"].get("elem_id"): part["props"] for part in config["components"]}
    assert parts["examples"]["choices"] == []
    assert parts["examples"]["visible"] is False
    assert parts["upload"]["label"] == "Image"


def test_the_page_of_an_image(model):
    judge = replace(model, judge=Images(), usual=None)
    said = answer(judge, np.full((40, 60), 128, np.uint8))
    page = answer_page(said, "images", "HiResCAM", "sem.png")
    assert "40 &times; 60 pixels" in page
    assert "off-wafer" not in page
    assert "usually points to" not in page  # nothing is known of this class
    assert page.count('<img class="image"') == 2


def test_nothing_is_loaded_from_elsewhere(model, tmp_path):
    """The style that gradio makes of the theme; the browser test sees the rest."""
    blocks = blocks_of(model, tmp_path)
    assert not re.search(r"@import|url\((?![\"']?data:)", blocks.theme_css)
    assert not blocks.stylesheets
    assert not blocks.analytics_enabled
    assert "system-ui" in blocks.theme_css
