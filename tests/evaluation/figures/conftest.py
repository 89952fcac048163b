"""Tables that figures are drawn from, and ways to read a figure."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.fixture(scope="session")
def multiclass():
    """Target (N,) and probabilities (N, C) of a good model; 85 % are of the last class."""

    def make(wafers: int = 1500, classes: int = 9, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        prior = np.append(np.full(classes - 1, 0.15 / (classes - 1)), 0.85)
        target = random.choice(classes, wafers, p=prior)
        logits = random.normal(size=(wafers, classes)) + 0.5 * np.log(prior)
        logits[np.arange(wafers), target] += 3
        return target, softmax(1.5 * logits)

    return make


@pytest.fixture(scope="session")
def multilabel():
    """Target (N, C) and probabilities (N, C) of a good model."""

    def make(wafers: int = 1500, classes: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(seed)
        target = (random.random((wafers, classes)) < 0.2).astype(np.int8)
        return target, 1 / (1 + np.exp(-6 * target + 3 - 1.5 * random.normal(size=target.shape)))

    return make


def line(figure: Figure, gid: str, panel: int = 0) -> np.ndarray:
    """(K, 2) the points of a named line."""
    found = [artist for artist in figure.axes[panel].findobj(Line2D) if artist.get_gid() == gid]
    assert len(found) == 1, gid
    return np.column_stack(found[0].get_data()).astype(float)


def words(figure: Figure) -> list[str]:
    """Everything written in a figure."""
    return [text.get_text() for text in figure.findobj(Text)]


def shown(figure: Figure) -> list[Text]:
    """The texts that a reader sees, of a figure that was drawn."""
    hidden: set[Text] = set()
    for axes in figure.axes:
        for axis, view in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            for tick in [*axis.majorTicks, *axis.minorTicks]:
                outside = not min(view) - 1e-9 <= tick.get_loc() <= max(view) + 1e-9
                if outside or not axes.axison:
                    hidden |= {tick.label1, tick.label2}
            hidden |= {axis.get_offset_text(), axis.label} if not axes.axison else set()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return [text for text in texts if text not in hidden]


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that are written over each other, and texts written over data by a legend."""
    texts = shown(figure)
    boxes = [text.get_window_extent().padded(-1) for text in texts]
    pairs = [
        (texts[a].get_text(), texts[b].get_text())
        for a in range(len(texts))
        for b in range(a)
        if boxes[a].overlaps(boxes[b])
    ]
    panels: list[Axes] = [axes for axes in figure.axes if axes.axison]
    legends = [*figure.legends, *(axes.get_legend() for axes in panels if axes.get_legend())]
    for legend in legends:
        area = legend.get_window_extent().padded(-4)
        pairs += [("legend", axes.get_xlabel()) for axes in panels if area.overlaps(axes.get_window_extent())]
    return pairs


@pytest.fixture(name="line", scope="session")
def _line():
    return line


@pytest.fixture(name="words", scope="session")
def _words():
    return words


@pytest.fixture(name="overlaps", scope="session")
def _overlaps():
    return overlaps


@pytest.fixture(scope="session")
def smallest_text():
    """The smallest font size, in points, that a reader sees."""
    return lambda figure: min(text.get_fontsize() for text in shown(figure))
