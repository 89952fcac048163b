"""Tables and numbers as text and Markdown."""

from collections.abc import Iterable, Sequence

#: The scores a person asks for first, in this order, and what the field calls them.
HEADLINE = {
    "iou_macro": "mean IoU",
    "dice_macro": "mean Dice",
    "iou_wafer_macro": "mean IoU by wafer",
    "f1_macro": "macro F1",
    "exact_match": "exact match",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1_micro": "micro F1",
    "hamming_accuracy": "Hamming accuracy",
    "escape_rate": "escape rate",
    "false_alarm_rate": "false alarm rate",
    "cost": "cost per wafer",
    "ece": "ECE",
    "nll": "NLL",
    "auroc_macro": "macro AUROC",
    "average_precision_macro": "macro average precision",
}


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines of plain text, the columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def with_interval(value: float, bounds: tuple[float, float] | None) -> str:
    """`0.9012 [0.8911, 0.9123]`, or the value alone."""
    return f"{value:.4f}" if bounds is None else f"{value:.4f} [{bounds[0]:.4f}, {bounds[1]:.4f}]"


def with_deviation(value: float, deviation: float) -> str:
    """`0.9012 ± 0.0101`."""
    return f"{value:.4f} \N{PLUS-MINUS SIGN} {deviation:.4f}"
