"""Unknown patterns: every defect class in turn is left out of training, and the model is asked whether it notices."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from wafer_lab.config.build import build
from wafer_lab.config.messages import did_you_mean
from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.errors import UserError
from wafer_lab.evaluation.html import write_html
from wafer_lab.evaluation.open_set import findings as open_set
from wafer_lab.evaluation.open_set.findings import Finding
from wafer_lab.evaluation.open_set.scores import unknown_scores
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.evaluation.views import wafers
from wafer_lab.files import write_text
from wafer_lab.imbalance.strategy import class_counts
from wafer_lab.metrics.scores import normal_classes
from wafer_lab.tracking.tracker import log_files
from wafer_lab.workflows.nested import child, fit_once, parent


@dataclass(frozen=True)
class UnknownResult:
    """What leaving classes out leaves.

    Attributes:
        run_dir: Its folder; `without_<class>` in it is the run that never saw the class.
        monitored: Mean over the runs of the best monitored validation score.
        findings: One per class and score.
    """

    run_dir: Path
    monitored: float
    findings: list[Finding]


def unknown(cfg: DictConfig, classes: Sequence[str] | None = None) -> UnknownResult:
    """Leave every defect class out in turn; measure how well each score flags its wafers among the known test wafers.

    Started again in its folder, it keeps the runs that were finished and goes on with the others.

    Args:
        cfg: A composed and validated config.
        classes: The classes to leave out, one at a time; None takes every defect class that the data has.

    Returns:
        The result; unknown.csv, unknown.md, metrics.json and figures lie in `cfg.paths.run`.

    Raises:
        UserError: `data.leave_out` is set, a class does not exist, has no wafer, is normal or is named twice, or as
            `fit`.
    """
    if cfg.data.leave_out:
        raise UserError(
            "workflow=unknown sets data.leave_out itself, to one class after another; name them in workflow.classes"
        )
    settings: Evaluation = build(cfg.evaluation)
    names = _chosen(build(cfg.data), settings, classes)
    children = [child(cfg, f"without_{name}", {"data": {"leave_out": [name]}}) for name in names]
    run_dir = Path(cfg.paths.run)
    findings: list[Finding] = []
    monitored: list[float] = []
    with parent(cfg, children) as tracked:
        for name, one in zip(names, children, strict=True):
            result = fit_once(one)
            monitored.append(result.monitored)
            findings += _findings(name, result.predictions, settings, run_dir if cfg.figures else None)
        flat = open_set.flat(findings)
        write_text(run_dir / "metrics.json", json.dumps(flat, indent=1))
        write_text(run_dir / "unknown.csv", open_set.as_csv(findings))
        page = write_html(write_text(run_dir / "unknown.md", open_set.report(cfg.name, findings)))
        tracked.log_metrics({name: value for name, value in flat.items() if not name.endswith(("/low", "/high"))})
        log_files(tracked, run_dir, ("metrics.json", "unknown.csv", "unknown.md", "unknown.html", "figures"))
        print("\n".join(["", *open_set.headline(findings), "", f"report  {page}"]), flush=True)
    return UnknownResult(run_dir, float(np.mean(monitored)), findings)


def _chosen(datamodule: WaferDataModule, settings: Evaluation, classes: Sequence[str] | None) -> list[str]:
    """The classes asked for, checked, or all that are a defect and of which the data has wafers."""
    datamodule.setup()
    names = datamodule.class_names
    counts = class_counts(datamodule.label, datamodule.num_classes, datamodule.label_kind)
    normal = normal_classes(names, settings.normal)
    defects = [name for name, harmless in zip(names, normal, strict=True) if not harmless]
    present = [name for name, count in zip(names, counts, strict=True) if count]
    if not classes:
        return [name for name in defects if name in present]
    for name in classes:
        if name not in names:
            raise UserError(f"workflow.classes: there is no class {name}{did_you_mean(name, names)}")
        if name not in defects:
            raise UserError(
                f"workflow.classes: {name} is no defect but a normal class; choose from {', '.join(defects)}"
            )
        if name not in present:
            raise UserError(f"workflow.classes: the data has no wafer of {name}; choose from {', '.join(present)}")
        if list(classes).count(name) > 1:
            raise UserError(f"workflow.classes names {name} twice; name every class once")
    return list(classes)


def _findings(name: str, predictions: Predictions, settings: Evaluation, drawn: Path | None) -> list[Finding]:
    """What every score finds of one left-out class; with its figures where `drawn` is the folder of the run."""
    parts = [wafers(predictions, part, settings.tta) for part in ("test", "unknown")]
    scores = [unknown_scores(part) for part in parts]
    found = []
    for score in scores[0]:
        known, unknown = (part[score] for part in scores)
        lots = {"known_lot": parts[0].lot, "unknown_lot": parts[1].lot}
        finding = Finding.of(name, score, known, unknown, settings.resamples, settings.seed, **lots)
        found.append(finding)
        if drawn and find_spec("matplotlib"):
            from wafer_lab.evaluation import figures

            title = f"{name} left out"
            figure = figures.unknown(known, unknown, score, finding.auroc, finding.fpr, title)
            figures.save(figure, drawn / "figures" / f"{score}_without_{name}.png")
    return found
