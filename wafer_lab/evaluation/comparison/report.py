"""A comparison as files: tables, figures and a document."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from wafer_lab.evaluation.comparison import tables
from wafer_lab.evaluation.comparison.comparison import Comparison
from wafer_lab.files import write_text

#: The document, which is written last, so that it is there only when all files are.
DOCUMENT = "comparison.md"


def write_comparison(out: Path, found: Comparison, notes: Sequence[str]) -> None:
    """Write comparison.csv, effects.csv of a grid, the figures and comparison.md.

    Args:
        out: folder for the files, made where it is missing.
        found: the comparison.
        notes: lines about how it was made.
    """
    write_text(out / "comparison.csv", tables.settings_csv(found))
    if found.effects:
        write_text(out / "effects.csv", tables.effects_csv(found))
    drawn = _draw(out, found)
    write_text(out / DOCUMENT, tables.markdown(found, notes, drawn))


def _draw(out: Path, found: Comparison) -> list[str]:
    """Draw the figures; none where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        return []
    from wafer_lab.evaluation import figures

    columns = ("name", "mean", "low", "high", "scores")
    names, means, lows, highs, seeds = ([getattr(s, key) for s in found.settings] for key in columns)
    mode = "min" if found.lower_is_better else "max"
    bars = figures.comparison(names, means, lows, highs, seeds, found.score, mode)
    drawn = [figures.save(bars, out / "comparison.png").name]
    levels: dict[str, dict[str, tuple[float, float, float]]] = {}
    for effect in found.effects:
        levels.setdefault(effect.factor, {})[effect.level] = (effect.mean, effect.low, effect.high)
    if levels:
        drawn.append(figures.save(figures.main_effects(levels, found.score), out / "main_effects.png").name)
    return drawn
