"""A run told to a person: the console's last lines, its figures and report.md."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from wafer_lab.evaluation.intervals import Intervals
from wafer_lab.evaluation.predictions import Predictions

# The scores a person asks for first, and what the field calls them.
_HEADLINE = {
    "f1_macro": "macro F1",
    "exact_match": "exact match",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1_micro": "micro F1",
    "hamming_accuracy": "Hamming accuracy",
    "escape_rate": "escape rate",
    "false_alarm_rate": "false alarm rate",
    "auroc_macro": "macro AUROC",
    "average_precision_macro": "macro average precision",
}
_SPLITS = ("val", "test")
_CAPTIONS = {
    "learning_curves": "Losses and the monitored score; the dashed line is the epoch that was kept.",
    "confusion_matrix": "What was taken for what: wafers, and percent of the truth.",
    "per_class_f1": "F1 of every class with its 95 % interval; in brackets the number of wafers.",
}


def headline(scores: Mapping[str, float], intervals: Intervals) -> list[str]:
    """The main scores of val and test as lines of plain text, each with its 95 % interval.

    Args:
        scores: keyed ``split/name``, as in metrics.json.
        intervals: likewise; a score without one stands alone.

    Returns:
        A heading and one line per score that is there.
    """
    splits = [split for split in _SPLITS if any(key.startswith(f"{split}/") for key in scores)]
    rows = [["", *splits], *_headline_rows(scores, intervals, splits)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(splits) + 1)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def write_figures(
    run_dir: Path | str,
    predictions: Predictions,
    scores: Mapping[str, float],
    intervals: Intervals,
    history: Sequence[Mapping[str, float]] = (),
    monitor: str = "val/f1_macro",
    mode: str = "max",
) -> list[Path]:
    """Draw a run's figures into ``figures/`` of its folder.

    Args:
        run_dir: the run's folder.
        predictions: of val and test.
        scores: keyed ``split/name``.
        intervals: likewise.
        history: one mapping per epoch, see `figures.learning_curves`; without it there are no curves.
        monitor: the score that chose the checkpoint.
        mode: "max" or "min".

    Returns:
        The files; none where matplotlib is not installed, which training does not need.
    """
    if find_spec("matplotlib") is None:
        return []
    from wafer_lab.evaluation import figures

    folder = Path(run_dir) / "figures"
    written = []
    if history:
        curves = figures.learning_curves(history, monitor, mode)
        written.append(figures.save(curves, folder / "learning_curves.png"))
    for split in _present(predictions):
        table = predictions.select(split=split, view=0)
        own = {key.removeprefix(f"{split}/"): value for key, value in scores.items() if key.startswith(f"{split}/")}
        bounds = {key.removeprefix(f"{split}/"): b for key, b in intervals.items() if key.startswith(f"{split}/")}
        matrix = figures.confusion_matrix(table, title=split)
        bars = figures.per_class_f1(own, bounds, _support(table), title=split)
        written.append(figures.save(matrix, folder / f"confusion_matrix_{split}.png"))
        written.append(figures.save(bars, folder / f"per_class_f1_{split}.png"))
    return written


def write_report(
    run_dir: Path | str,
    predictions: Predictions,
    scores: Mapping[str, float],
    intervals: Intervals,
    facts: Mapping[str, Any],
) -> Path:
    """Write ``report.md`` into a run's folder, with the figures found in its ``figures/``.

    Args:
        run_dir: the run's folder.
        predictions: of val and test.
        scores: keyed ``split/name``, as in metrics.json.
        intervals: likewise.
        facts: how the run was made, shown in this order and by these names. `provenance.provenance()` has
            most; the workflow adds ``name`` (the heading), ``seed``, ``data_seed``, ``duration``, and
            ``monitor`` with ``best_epoch`` and ``best_score``, which say what val chose. The split digest and
            the data fingerprint come from the table.

    Returns:
        The report's path.
    """
    run_dir = Path(run_dir)
    sections = [
        [f"# {facts.get('name', run_dir.name)}"],
        _scores_section(scores, intervals),
        [_selection(facts)],
        *(_class_section(split, predictions, scores, intervals) for split in reversed(_present(predictions))),
        _figures_section(run_dir),
        _facts_section(run_dir, predictions, facts),
        _notes(predictions),
    ]
    text = "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"
    path = run_dir / "report.md"
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def _scores_section(scores: Mapping[str, float], intervals: Intervals) -> list[str]:
    splits = [split for split in _SPLITS if any(key.startswith(f"{split}/") for key in scores)]
    rows = _headline_rows(scores, intervals, splits)
    return ["## Scores", "", *_table(["score", *splits], rows)]


def _headline_rows(scores: Mapping[str, float], intervals: Intervals, splits: Sequence[str]) -> Iterator[list[str]]:
    for key, label in _HEADLINE.items():
        cells = [_score(scores, intervals, f"{split}/{key}") for split in splits]
        if any(cells):
            yield [label, *cells]


def _score(scores: Mapping[str, float], intervals: Intervals, key: str) -> str:
    if key not in scores:
        return ""
    if key not in intervals:
        return f"{scores[key]:.4f}"
    low, high = intervals[key]
    return f"{scores[key]:.4f} [{low:.4f}, {high:.4f}]"


def _selection(facts: Mapping[str, Any]) -> str:
    chosen = "Everything that was chosen, was chosen on val"
    if "monitor" in facts:
        chosen += f": the checkpoint is the one with the best `{facts['monitor']}`"
        if "best_score" in facts:
            chosen += f" ({facts['best_score']:.4f}"
            chosen += f", epoch {facts['best_epoch']})" if "best_epoch" in facts else ")"
    return f"{chosen}. The test wafers were used once, by that model, to make these numbers."


def _class_section(
    split: str, predictions: Predictions, scores: Mapping[str, float], intervals: Intervals
) -> list[str]:
    support = _support(predictions.select(split=split, view=0))
    rows = [
        [name, f"{wafers:,}"]
        + [
            _score(scores, intervals, f"{split}/{key}/{name}") if wafers else "-"
            for key in ("f1", "precision", "recall")
        ]
        for name, wafers in support.items()
    ]
    return [f"## Classes, {split}", "", *_table(["class", "wafers", "F1", "precision", "recall"], rows)]


def _figures_section(run_dir: Path) -> list[str]:
    files = sorted((run_dir / "figures").glob("*.png"))
    if not files:
        return ["## Figures", "", "None: they need matplotlib (`pip install matplotlib`)."]
    lines = ["## Figures"]
    for name, caption in _CAPTIONS.items():
        for file in (file for file in files if file.stem.startswith(name)):
            split = file.stem.removeprefix(name).strip("_")
            title = f"{caption} ({split})" if split else caption
            lines += ["", f"![{title}](figures/{file.name})", "", f"*{title}*"]
    return lines


def _facts_section(run_dir: Path, predictions: Predictions, facts: Mapping[str, Any]) -> list[str]:
    shown = {key: value for key, value in facts.items() if key not in ("name", "command")}
    shown |= {"split_digest": predictions.split_digest, "data_fingerprint": predictions.data_fingerprint}
    lines = ["## How this run was made", ""]
    if "command" in facts:
        lines += ["```", str(facts["command"]), "```", ""]
    rows = [[key.replace("_", " "), _plain(value)] for key, value in shown.items()]
    if (run_dir / "config.yaml").exists():
        rows.insert(0, ["configuration", "[config.yaml](config.yaml)"])
    return lines + _table(["fact", "value"], rows)


def _notes(predictions: Predictions) -> list[str]:
    lines = [
        "## Reading the intervals",
        "",
        "In brackets: 95 % percentile bootstrap over wafers. It says how far a score would move with other test "
        "wafers of the same kind, not with another training run. An interval of no width means that no error was "
        "seen, or nothing but errors: among n wafers of a class without an error, up to about 3 / n may still be "
        "wrong. Macro means are over the classes that occur, in truth or in prediction. AUROC and average precision "
        "have no interval.",
        "",
        "Escape rate: the share of defects called none. False alarm rate: the share of none called a defect.",
    ]
    if predictions.target_kind == "multilabel":
        lines[-1] += " A wafer without any label is a none."
    return lines


def _present(predictions: Predictions) -> list[str]:
    return [split for split in _SPLITS if split in predictions.splits()]


def _support(predictions: Predictions) -> dict[str, int]:
    """Class name -> wafers that are, or have, that class."""
    return {
        name: int((predictions.target == k).sum() if predictions.target.ndim == 1 else predictions.target[:, k].sum())
        for k, name in enumerate(predictions.class_names)
    }


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(heading: Sequence[str], rows: Any) -> list[str]:
    lines = [list(heading), ["---"] * len(heading), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines]
