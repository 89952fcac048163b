from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from wafer_lab.data.classes import MIXEDWM38_CLASSES, WM811K_CLASSES
from wafer_lab.evaluation import figures
from wafer_lab.evaluation.intervals import bootstrap_intervals, count_scores

MANY = [f"Center+Edge-Ring+Loc+Scratch and more {k}" if k % 3 == 0 else f"C{k}" for k in range(38)]
NAMES = {2: ("pass $1", "fail_2"), 9: WM811K_CLASSES, 38: MANY}
HISTORY = [
    {"epoch": e, "train/loss": 1 / (e + 1), "val/loss": 1.1 / (e + 1), "val/f1_macro": 0.9 - (e - 6) ** 2 / 100}
    for e in range(10)
]


def pixels(figure: Figure, path: Path) -> np.ndarray:
    with Image.open(figures.save(figure, path)) as image:
        assert image.format == "PNG"
        assert [item.name for item in path.parent.iterdir()] == [path.name]
        return np.asarray(image.convert("RGB")).astype(float)


def written(figure: Figure) -> list[str]:
    texts = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return [artist.get_text() for artist in texts]


@pytest.mark.parametrize("classes", [2, 9, 38])
def test_confusion_matrix_shows_counts_and_shares(classes, multiclass_table, tmp_path: Path) -> None:
    table = multiclass_table(rows=4000, names=NAMES[classes], right=0.9)
    figure = figures.confusion_matrix(table, title="test")
    assert pixels(figure, tmp_path / "a.png").std() > 10
    texts = written(figure)
    hits = int(((table.target == 0) & (table.decisions() == 0)).sum())
    assert f"{hits:,}" in texts
    assert f"{100 * hits / (table.target == 0).sum():.0f}" in texts
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert len(set(names)) == classes
    assert max(map(len, names)) <= 32


def test_multilabel_confusion_counts_each_label(multilabel_table, tmp_path: Path) -> None:
    table = multilabel_table(rows=2000, names=MIXEDWM38_CLASSES)
    figure = figures.confusion_matrix(table)
    assert pixels(figure, tmp_path / "a.png").std() > 10
    has, called = table.target[:, 0] == 1, table.decisions()[:, 0] == 1
    expected = [(has & called).sum(), (has & ~called).sum(), (~has & called).sum(), (~has & ~called).sum()]
    shown = [text.get_text() for text in figure.axes[0].texts[:4]]
    assert shown == [f"{count:,}" for count in expected]


def test_empty_classes_draw_without_a_division_by_zero(multiclass_table, tmp_path: Path) -> None:
    table = multiclass_table(rows=1, names=WM811K_CLASSES)
    assert pixels(figures.confusion_matrix(table), tmp_path / "a.png").std() > 1


@pytest.mark.parametrize("classes", [2, 9, 38])
def test_per_class_f1_writes_score_and_interval(classes, multiclass_table, tmp_path: Path) -> None:
    table = multiclass_table(rows=2000, names=NAMES[classes])
    scores, intervals = count_scores(table), bootstrap_intervals(table, resamples=100)
    figure = figures.per_class_f1(scores, intervals, support=dict.fromkeys(NAMES[classes], 1234), title="test")
    assert pixels(figure, tmp_path / "a.png").std() > 10
    name = NAMES[classes][1]
    low, high = intervals[f"f1/{name}"]
    texts = written(figure)
    assert f"{scores[f'f1/{name}']:.3f}  [{low:.3f}, {high:.3f}]" in texts
    assert f"{name}  (1,234)" in texts


def test_learning_curves_mark_the_best_epoch(tmp_path: Path) -> None:
    figure = figures.learning_curves(HISTORY)
    assert pixels(figure, tmp_path / "a.png").std() > 10
    assert "best: epoch 6, 0.9000" in written(figure)
    losses = figures.learning_curves(HISTORY, monitor="val/loss", mode="min")
    assert "best: epoch 9, 0.1100" in written(losses)


@pytest.mark.parametrize("history", [HISTORY[:1], [{"train/loss": 1.0}, {"val/f1_macro": 0.5}], [{}]])
def test_learning_curves_of_little_history(history, tmp_path: Path) -> None:
    assert pixels(figures.learning_curves(history), tmp_path / "a.png").std() > 1


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0"), (0.001, "<1"), (0.5, "50"), (0.9949, "99"), (0.9996, "99.9"), (1, "100")]
)
def test_percent_never_rounds_to_none_or_all(share, text) -> None:
    assert figures._percent(share) == text


def test_no_pyplot_state_is_touched() -> None:
    import subprocess
    import sys

    code = "import sys, wafer_lab.evaluation, wafer_lab.evaluation.report as r; print('matplotlib' in sys.modules);"
    code += "import wafer_lab.evaluation.figures; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
