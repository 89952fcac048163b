"""Figures of a run, drawn for print: pure functions from arrays to matplotlib figures, without pyplot or global state.

They need numpy, matplotlib and `wafer_lab.metrics` only; `save` writes one as PNG.
"""

from wafer_lab.evaluation.figures.budget import label_budget
from wafer_lab.evaluation.figures.calibration import conformal, reliability
from wafer_lab.evaluation.figures.classes import masks_iou, per_class_f1, pr_curves, roc_curves
from wafer_lab.evaluation.figures.confusion import confusion_matrix
from wafer_lab.evaluation.figures.decisions import cost_curve, rules, threshold_sensitivity
from wafer_lab.evaluation.figures.ensembles import ensemble_sizes
from wafer_lab.evaluation.figures.masks import MaskExample, mask_sheet
from wafer_lab.evaluation.figures.multilabel import exact_match_by_count, spurious_labels, type_table
from wafer_lab.evaluation.figures.open_set import unknown
from wafer_lab.evaluation.figures.search import Slice, importance, pareto, search_history, slices
from wafer_lab.evaluation.figures.settings import comparison, main_effects
from wafer_lab.evaluation.figures.style import save
from wafer_lab.evaluation.figures.training import learning_curves
from wafer_lab.evaluation.figures.transfer import label_curves
from wafer_lab.evaluation.figures.wafers import heatmaps, worst_errors

__all__ = [
    "MaskExample",
    "Slice",
    "comparison",
    "conformal",
    "confusion_matrix",
    "cost_curve",
    "ensemble_sizes",
    "exact_match_by_count",
    "heatmaps",
    "importance",
    "label_budget",
    "label_curves",
    "learning_curves",
    "main_effects",
    "mask_sheet",
    "masks_iou",
    "pareto",
    "per_class_f1",
    "pr_curves",
    "reliability",
    "roc_curves",
    "rules",
    "save",
    "search_history",
    "slices",
    "spurious_labels",
    "threshold_sensitivity",
    "type_table",
    "unknown",
    "worst_errors",
]
