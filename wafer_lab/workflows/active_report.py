"""What active learning leaves in its folder, says on the console and gives to the tracker."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig

from wafer_lab.active import curves
from wafer_lab.active.curves import RANDOM, Curve, Point
from wafer_lab.evaluation.html import write_html
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.evaluation.tables import HEADLINE
from wafer_lab.files import write_text
from wafer_lab.tracking.tracker import Run, log_files


def leave(cfg: DictConfig, points: Sequence[Point], settings: Evaluation, score: str, tracked: Run) -> None:
    """Write curves.csv, metrics.json, report.md, report.html and figures/active.png, and log them.

    Args:
        cfg: The run's config.
        points: One per model.
        settings: Their bootstrap.
        score: What they are about.
        tracked: The run in the tracker.
    """
    run_dir = Path(cfg.paths.run)
    found = curves.curves(points)
    worths = curves.worth(found, settings.resamples, settings.seed) if RANDOM in found and len(found) > 1 else {}
    flat = curves.flat(worths)
    drawn = bool(cfg.figures and find_spec("matplotlib"))
    if drawn:
        _draw(run_dir / "figures" / "active.png", found, settings, score, cfg.name)
    write_text(run_dir / "curves.csv", curves.as_csv(points, score))
    write_text(run_dir / "metrics.json", json.dumps(flat, indent=1))
    page = write_html(write_text(run_dir / "report.md", curves.report(cfg.name, found, worths, score, drawn)))
    tracked.log_metrics({name: value for name, value in flat.items() if not name.endswith(("/low", "/high"))})
    for name, curve in found.items():
        for labels, value in zip(curve.labels.tolist(), curve.scores.mean(0).tolist(), strict=True):
            tracked.log_metrics({f"active/{name}/test/{score}": value}, step=labels)
    log_files(tracked, run_dir, ("curves.csv", "metrics.json", "report.md", "report.html", "figures"))
    lines = curves.headline(found, worths) if worths else []
    print("\n".join(["", *lines, "", f"report  {page}"]), flush=True)


def _draw(path: Path, found: dict[str, Curve], settings: Evaluation, score: str, title: str) -> None:
    from wafer_lab.evaluation import figures

    lines = {
        name: (curve.labels, curve.scores.mean(0), curves.band(curve, settings.resamples, settings.seed))
        for name, curve in found.items()
    }
    figures.save(figures.label_budget(lines, f"test {HEADLINE.get(score, score)}", RANDOM, title), path)
