"""Cross-validation: one fit per fold, every labelled wafer judged once by a model that never saw it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from wafer_lab.config.build import build
from wafer_lab.errors import UserError
from wafer_lab.evaluation import folds
from wafer_lab.evaluation.drawings import figures_section, write_fold_figures
from wafer_lab.evaluation.html import write_html
from wafer_lab.evaluation.masks import FILE as MASKS
from wafer_lab.evaluation.masks import Masks, judge
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.predictor.predictor import Predictor
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.files import write_text
from wafer_lab.tracking.tracker import Run, log_files
from wafer_lab.workflows.fit import FitResult
from wafer_lab.workflows.nested import child, fit_once, parent


@dataclass(frozen=True)
class KfoldResult:
    """What a cross-validation leaves.

    Attributes:
        run_dir: Its folder; `fold_<i>` in it is the run of fold i.
        monitored: Mean over folds of the best monitored validation score.
        scores: Flat metrics, as in metrics.json: `test/<score>` of all wafers together, and `folds/<score>/mean` and
            `/sd` over the folds; AUROC, average precision and ECE over the folds alone.
        predictions: Every fold's test rows in one table.
    """

    run_dir: Path
    monitored: float
    scores: dict[str, float]
    predictions: Predictions


def kfold(cfg: DictConfig) -> KfoldResult:
    """Fit and judge every fold of `data.split=kfold`.

    Started again in its folder, it keeps the folds that were finished and goes on with the others.

    Args:
        cfg: A composed and validated config; its `data.fold` is not used.

    Returns:
        The result; the files lie in `cfg.paths.run`.

    Raises:
        UserError: The split is not kfold, a finished fold was evaluated with other settings since, or as `fit`.
    """
    if cfg.data.split != "kfold":
        raise UserError(f"workflow=kfold goes through folds, but data.split={cfg.data.split}; set data.split=kfold")
    if cfg.data.folds < 2:
        raise UserError(f"data.folds={cfg.data.folds} must be at least 2")
    settings: Evaluation = build(cfg.evaluation)
    children = [child(cfg, f"fold_{fold}", {"data": {"fold": fold}}) for fold in range(cfg.data.folds)]
    with parent(cfg, children) as tracked:
        fitted = [_fit(one, settings) for one in children]
        results = [result for result, _ in fitted]
        predictions = folds.out_of_fold([result.predictions for result in results])
        predictions.write(Path(cfg.paths.run) / "predictions.parquet")
        pooled = folds.pool([result.predictions for result in results], [predictor for _, predictor in fitted])
        masks = _masks(results, predictions) if cfg.data.target == "mask" else None
        scores = _judge(cfg, results, pooled, masks, settings, tracked)
    monitored = float(np.mean([result.monitored for result in results]))
    return KfoldResult(Path(cfg.paths.run), monitored, scores, predictions)


def _fit(cfg: DictConfig, settings: Evaluation) -> tuple[FitResult, Predictor]:
    """Fit a fold, unless it was done before, and read its predictor.

    Raises:
        UserError: The predictor was fitted with other settings, as `wafer-lab evaluate` can.
    """
    result = fit_once(cfg)
    predictor = Predictor.read(result.run_dir / "predictor.json")
    theirs = predictor.settings
    names = [field.name for field in fields(settings) if getattr(settings, field.name) != getattr(theirs, field.name)]
    if names:
        changed = ", ".join(f"{name}={getattr(theirs, name)}, not {getattr(settings, name)}" for name in names)
        raise UserError(
            f"{result.run_dir} was evaluated with other settings than its cross-validation ({changed}); "
            f"wafer-lab evaluate {result.run_dir} without options goes back to the run's own"
        )
    return result, predictor


def _masks(results: Sequence[FitResult], predictions: Predictions) -> Masks:
    """Every fold's test masks in one table, which is written too."""
    tables = [Masks.read(result.run_dir / MASKS).select("test") for result in results]
    masks = Masks.concat(tables, predictions.split_digest)
    masks.write(results[0].run_dir.parent / MASKS)
    return masks


def _judge(
    cfg: DictConfig,
    results: Sequence[FitResult],
    pooled: folds.Pooled,
    masks: Masks | None,
    settings: Evaluation,
    tracked: Run,
) -> dict[str, float]:
    """Score all wafers together; write and log metrics.json, figures and report.md."""
    scores, intervals = folds.score(pooled, settings)
    if masks is not None:
        found, bounds = judge(masks, settings.resamples, settings.seed)
        scores, intervals = found | scores, bounds | intervals
    each = [_of_test(result.scores) for result in results]
    run_dir = Path(cfg.paths.run)
    flat = {f"test/{name}": value for name, value in scores.items()}
    for name, (mean, deviation) in folds.spread(each).items():
        flat |= {f"folds/{name}/mean": mean, f"folds/{name}/sd": deviation}
    tracked.log_metrics(flat)
    for name, (low, high) in intervals.items():
        flat |= {f"test/{name}/low": low, f"test/{name}/high": high}
    write_text(run_dir / "metrics.json", json.dumps(flat, indent=1))
    if cfg.figures:
        write_fold_figures(run_dir, pooled, scores, intervals)
    shown = "\n".join(figures_section(run_dir))
    text = folds.report(cfg.name, scores, intervals, each, pooled)
    page = write_html(write_text(run_dir / "report.md", f"{text}\n{shown}\n"))
    log_files(tracked, run_dir, ("predictions.parquet", MASKS, "metrics.json", "report.md", "report.html", "figures"))
    print("\n".join(["", *folds.headline(scores, intervals, each), "", f"report  {page}"]), flush=True)
    return flat


def _of_test(scores: Mapping[str, float]) -> dict[str, float]:
    """The scores of the deployed predictor on test, without `test/`."""
    parts = {name.removeprefix("test/"): value for name, value in scores.items() if name.startswith("test/")}
    return {name: value for name, value in parts.items() if not name.startswith("uncalibrated/")}
