import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wafer_lab.evaluation import figures
from wafer_lab.evaluation.figures import style


def test_save_writes_a_png_in_one_step(tmp_path: Path) -> None:
    figure = style.canvas(2, 1, "a title")
    figure.subplots().plot([0, 1], [0, 1])
    path = figures.save(figure, tmp_path / "new" / "a.png")
    assert [item.name for item in path.parent.iterdir()] == ["a.png"]
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.info["dpi"][0] == pytest.approx(style.DPI, abs=1)
        assert np.asarray(image.convert("L")).std() > 10


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = figures.save(style.canvas(1, 1), tmp_path / "a.png")
    before = path.read_bytes()

    class Broken:
        def savefig(self, beside: Path, **_: object) -> None:
            Path(beside).write_bytes(b"half a fig")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        figures.save(Broken(), path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0"), (0.001, "<1"), (0.5, "50"), (0.9949, "99"), (0.9996, "99.9"), (1, "100")]
)
def test_percent_never_rounds_to_none_or_all(share, text) -> None:
    assert style.percent(share) == text


def test_scores_never_round_to_one() -> None:
    assert [style.score(value) for value in (0.12345, 0.99999, 1.0)] == ["0.1235", "0.9999", "1.0000"]


def test_long_names_keep_both_ends() -> None:
    short = style.short("Center+Edge-Loc+Loc+Scratch and more 17", 20)
    assert len(short) == 20
    assert short.startswith("Center")
    assert short.endswith("17")
    assert style.short("Loc", 20) == "Loc"


def test_lines_and_marks_differ() -> None:
    assert len({(style.line(k)["color"], style.line(k)["linestyle"]) for k in range(28)}) == 28
    assert len({(style.mark(k)["color"], style.mark(k)["marker"]) for k in range(56)}) == 56


def test_a_log_scale_needs_a_positive_value() -> None:
    axes = style.canvas(2, 2).subplots()
    assert not style.log_scale(axes, "y", np.array([0.0, np.nan]))
    assert axes.get_yscale() == "linear"
    assert style.log_scale(axes, "y", np.array([0.0, 0.01, 0.5]))
    assert axes.get_ylim()[0] < 0.01
    assert axes.get_ylim()[1] > 0.5


def test_a_legend_shows_every_dash_beside_its_marker() -> None:
    axes = style.canvas(4, 3).subplots()
    handles = [axes.plot([0, 1], [k, k], **style.line(k) | style.mark(k))[0] for k in range(4)]
    style.legend(axes, handles, list("abcd"))
    key = axes.get_legend()
    length = key.handlelength * key.get_texts()[0].get_fontsize()
    for k, drawn in enumerate(handles[1:], 1):
        period = sum(style.line(k)["linestyle"][1]) * drawn.get_linewidth()
        assert length - drawn.get_markersize() >= 2 * period


def test_pyplot_is_not_imported() -> None:
    code = "import sys, wafer_lab.evaluation; print('matplotlib' in sys.modules);"
    code += "import wafer_lab.evaluation.figures; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
