"""The figures of a judged run, written into its folder; which there are depends on what the run can say."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.evaluation.folds import Pooled
from wafer_lab.evaluation.intervals import Intervals
from wafer_lab.evaluation.judgement import Judged, Judgement, Step
from wafer_lab.evaluation.masks import JudgedMasks
from wafer_lab.evaluation.predictor.cost import RATIOS, normal_threshold
from wafer_lab.evaluation.predictor.decisions import Argmax, MinimumCost, Thresholds, normal_indices
from wafer_lab.evaluation.views import Wafers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Row in the source -> the wafer as a person sees it, (H, W) uint8.
Picture = Callable[[int], NDArray[np.uint8]]

#: Name of a figure, without its split -> what it shows. The report keeps this order.
CAPTIONS = {
    "learning_curves": "Losses and the monitored score; the dashed line is the epoch that was kept.",
    "masks_iou": "IoU of every class's masks with its 95 % interval; in brackets the wafers that have one.",
    "masks": "Of every class the wafers of median and of least IoU among those that have the pattern, chosen by that "
    "rule alone; on the prediction lies the outline of the truth.",
    "confusion_matrix": "What was taken for what: wafers, and percent of the truth.",
    "per_class_f1": "F1 of every class with its 95 % interval; in brackets the number of wafers.",
    "worst_errors": "The errors whose truth got the least probability.",
    "spurious_labels": "Labels claimed of wafers that do not have them, by a label that they have.",
    "exact_match_by_count": "Wafers whose every label is right, by how many they have, with 95 % intervals.",
    "type_table": "Exact match of every combination of labels.",
    "roc_curves": "Each class against the rest: share found against share wrongly claimed.",
    "pr_curves": "Each class against the rest: precision against recall.",
    "reliability": "How often it was right against how sure it was, before and after calibration.",
    "rules": "Escapes against false alarms of every decision rule, and what each costs, with 95 % intervals.",
    "cost_curve": "What each rule costs as the price of an escape rises.",
    "threshold_sensitivity": "Escapes, false alarms and macro F1 as the threshold for normal moves.",
    "conformal": "How often a prediction set holds the truth, against what was promised.",
}
#: Drawn with the network, so by the run alone; it stays when the run is judged again.
MASK_SHEET = "masks_test.png"
_MOST_ERRORS = 16


def write_figures(
    run_dir: Path | str,
    judgement: Judgement,
    history: Sequence[Mapping[str, float]] = (),
    monitor: str = "val/f1_macro",
    mode: str = "max",
    picture: Picture | None = None,
    kind: str = "maps",
) -> list[Path]:
    """Draw a run's figures into ``figures/`` of its folder.

    Args:
        run_dir: the run's folder.
        judgement: what is known of the run.
        history: one mapping per epoch, see `figures.learning_curves`; without it there are no curves.
        monitor: the score that chose the checkpoint.
        mode: "max" or "min".
        picture: shows a wafer; None where the data is not at hand, and then no errors are shown.
        kind: ``maps`` or ``images``.

    Returns:
        The files; none where matplotlib is not installed, which training does not need.
    """
    folder = Path(run_dir) / "figures"
    written: list[Path] = []
    if find_spec("matplotlib") is None:
        return _clean(folder, written)
    from wafer_lab.evaluation import figures

    if history:
        written.append(figures.save(figures.learning_curves(history, monitor, mode), folder / "learning_curves.png"))
    if judgement.masks:
        written.append(figures.save(_masks_iou(judgement.masks), folder / "masks_iou.png"))
        written += folder.glob(MASK_SHEET)
    for split, part in judgement.splits.items():
        drawn = _of_split(split, part.wafers, part.decisions, part.scores, part.intervals)
        written += [figures.save(figure, folder / f"{name}_{split}.png") for name, figure in drawn]
    if picture is not None:
        sheet = figures.worst_errors(*_errors(judgement.test, picture), kind, "test")
        written.append(figures.save(sheet, folder / "worst_errors_test.png"))
    written += [figures.save(figure, folder / f"{name}_test.png") for name, figure in _of_test(judgement)]
    return _clean(folder, written)


def write_fold_figures(run_dir: Path, pooled: Pooled, scores: Mapping[str, float], intervals: Intervals) -> list[Path]:
    """Draw what the decisions on all folds' test wafers show into ``figures/`` of a cross-validation's folder.

    Curves over probabilities are not among them: those of several models do not compare.

    Args:
        run_dir: its folder.
        pooled: the wafers and their answers.
        scores: of them together, as `folds.score` gives them.
        intervals: likewise.

    Returns:
        The files; none where matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        return []
    from wafer_lab.evaluation import figures

    drawn = dict(_of_split("test, all folds", pooled, pooled.decisions, scores, intervals))
    if pooled.target_kind == "multilabel":
        drawn |= dict(_of_labels(pooled, pooled.decisions))
    return [figures.save(figure, run_dir / "figures" / f"{name}_test.png") for name, figure in drawn.items()]


def figures_section(run_dir: Path) -> list[str]:
    """The section of a report that shows the figures in a run's folder."""
    files = sorted((run_dir / "figures").glob("*.png"))
    if not files:
        return ["## Figures", "", "None: switched off by `figures=false`, or matplotlib is not installed."]
    lines = ["## Figures"]
    for name, caption in CAPTIONS.items():
        splits = ("", "_test", "_external", "_val")
        for file in (file for file in files if file.stem in [name + split for split in splits]):
            split = file.stem.removeprefix(name).strip("_")
            title = f"{caption} ({split})" if split else caption
            lines += ["", f"![{title}](figures/{file.name})", "", f"*{title}*"]
    return lines


def _clean(folder: Path, written: list[Path]) -> list[Path]:
    """Remove the figures of an earlier predictor that were not drawn again."""
    for name in CAPTIONS:
        for file in (folder / f"{name}{split}.png" for split in ("", "_val", "_test", "_external")):
            if file not in written:
                file.unlink(missing_ok=True)
    return written


def _of_split(
    title: str, own: Wafers | Pooled, decisions: NDArray[Any], scores: Mapping[str, float], intervals: Intervals
) -> "Iterator[tuple[str, Figure]]":
    from wafer_lab.evaluation import figures

    yield "confusion_matrix", figures.confusion_matrix(own.target, decisions, own.class_names, own.target_kind, title)
    counts = support(own)
    absent = {f"f1/{name}" for name, count in counts.items() if not count}
    there = {name: value for name, value in scores.items() if name not in absent}
    yield "per_class_f1", figures.per_class_f1(there, intervals, counts, title)


def _of_labels(own: Wafers | Pooled, decisions: NDArray[Any]) -> "Iterator[tuple[str, Figure]]":
    from wafer_lab.evaluation import figures

    yield "spurious_labels", figures.spurious_labels(own.target, decisions, own.class_names)
    yield "exact_match_by_count", figures.exact_match_by_count(own.target, decisions)
    yield "type_table", figures.type_table(own.target, decisions, own.class_names)


def _of_test(judgement: Judgement) -> "Iterator[tuple[str, Figure]]":
    from wafer_lab.evaluation import figures

    test, own, settings = judgement.test, judgement.test.wafers, judgement.settings
    target, names, kind = own.target, own.class_names, own.target_kind
    yield "roc_curves", figures.roc_curves(target, test.probabilities, names, kind)
    yield "pr_curves", figures.pr_curves(target, test.probabilities, names, kind)
    before = judgement.before.probabilities if judgement.predictor.calibration.kind != "none" else None
    yield "reliability", figures.reliability(before, test.probabilities, target, kind)
    if kind == "multilabel":
        yield from _of_labels(own, test.decisions)
    rows = rule_rows(judgement)
    if rows:
        yield "rules", figures.rules(rows)
    if judgement.costs:
        ratio = settings.cost_ratio if settings.cost_matrix is None else None
        yield "cost_curve", figures.cost_curve(RATIOS, judgement.costs, ratio)
    if judgement.sensitivity:
        default, chosen = _thresholds(judgement)
        yield "threshold_sensitivity", figures.threshold_sensitivity(judgement.sensitivity, chosen, default)
    if judgement.conformal:
        covered = {
            mode: dict(zip(names, coverage.per_class.tolist(), strict=True))
            for mode, (_, coverage) in judgement.conformal.items()
        }
        sizes = {mode: coverage.mean_size for mode, (_, coverage) in judgement.conformal.items()}
        yield "conformal", figures.conformal(covered["marginal"], covered["class"], settings.coverage, sizes)


def _masks_iou(judged: JudgedMasks) -> "Figure":
    from wafer_lab.evaluation import figures

    scores = {name.removeprefix("test/"): v for name, v in judged.scores.items() if name.startswith("test/")}
    bounds = {name.removeprefix("test/"): v for name, v in judged.intervals.items() if name.startswith("test/")}
    test = judged.masks.select("test")
    count = dict(zip(test.class_names, (test.true > 0).sum(axis=0).tolist(), strict=True))
    return figures.masks_iou(scores, bounds, count, "test")


def support(own: Wafers | Pooled) -> dict[str, int]:
    """Class name -> wafers that are, or have, that class."""
    target, names = own.target, own.class_names
    counts = target.sum(axis=0) if target.ndim == 2 else np.bincount(target, minlength=len(names))
    return dict(zip(names, counts.tolist(), strict=True))


def rule_rows(judgement: Judgement) -> list[dict[str, Any]]:
    """The alternatives as `figures.rules` draws them; none where no class is normal."""
    shown = ("escape_rate", "false_alarm_rate", "cost")
    rows = []
    for step in judgement.steps:
        scores, intervals = step.judged.scores, step.judged.intervals
        if all(name in scores for name in shown):
            bounds = {f"{name}_interval": intervals[name] for name in shown if name in intervals}
            rows.append({"name": step_name(judgement, step)} | {name: scores[name] for name in shown} | bounds)
    return rows


def step_name(judgement: Judgement, step: Step) -> str:
    """What an alternative is called, marked where it is the deployed predictor."""
    return f"{step.name} (in use)" if step.settings == judgement.settings else step.name


def _thresholds(judgement: Judgement) -> tuple[float, float | None]:
    """The threshold for normal without tuning, and the one in use, where the rule has one on that axis."""
    own, decision = judgement.test.wafers, judgement.predictor.decision
    if own.target_kind == "multilabel":
        if isinstance(decision, MinimumCost):
            missed, needless = decision.costs[0]
            return 0.5, needless / (missed + needless)
        return 0.5, 0.5 if isinstance(decision, Argmax) else None
    normal = normal_indices(judgement.settings, own.class_names)
    default = len(normal) / len(own.class_names)
    if isinstance(decision, Thresholds):
        return default, normal_threshold(decision.values, normal)
    return default, default if isinstance(decision, Argmax) else None


def _errors(part: Judged, picture: Picture) -> tuple[list[NDArray[np.uint8]], list[str]]:
    """The wafers that were decided wrongly, those with the least probability of the truth first, and their texts."""
    own, p = part.wafers, part.probabilities
    if own.target_kind == "multilabel":
        wrong = (own.target != part.decisions).any(axis=1)
        truth = np.where(own.target == 1, p, 1 - p).min(axis=1)
    else:
        wrong = own.target != part.decisions
        truth = p[np.arange(len(own)), own.target]
    rows = np.flatnonzero(wrong)
    rows = rows[np.argsort(truth[rows], kind="stable")][:_MOST_ERRORS]
    texts = [
        f"row {own.index[row]}, p(true) {truth[row]:.3f}\ntrue {_named(own.target[row], own.class_names)}\n"
        f"taken for {_named(part.decisions[row], own.class_names)}"
        for row in rows
    ]
    return [picture(int(own.index[row])) for row in rows], texts


def _named(value: Any, names: Sequence[str]) -> str:
    if np.ndim(value) == 0:
        return names[int(value)]
    return "+".join(name for name, has in zip(names, value, strict=True) if has) or "none"
