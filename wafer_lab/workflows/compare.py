"""Compare finished runs from what lies in their folders: no model, no data, seconds."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from wafer_lab.errors import UserError
from wafer_lab.evaluation.comparison import factors, tables
from wafer_lab.evaluation.comparison.comparison import Answers, Comparison
from wafer_lab.evaluation.comparison.comparison import compare as compare_answers
from wafer_lab.evaluation.comparison.report import DOCUMENT, write_comparison
from wafer_lab.evaluation.intervals import judge
from wafer_lab.evaluation.predictor.decisions import optional_costs
from wafer_lab.evaluation.predictor.predictor import Fitted, Predictor, fit_predictor
from wafer_lab.evaluation.provenance import git_revision
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.evaluation.views import Wafers, wafers
from wafer_lab.tracking.mlflow_tracker import MLflowTracker
from wafer_lab.workflows.finished import (
    PREDICTOR,
    FinishedRun,
    check_comparable,
    find_runs,
    read_run,
    run_id,
    val_scores,
)

_MLFLOW = f"{MLflowTracker.__module__}.{MLflowTracker.__qualname__}"
# What of the evaluation settings decides how a wafer is judged, not how it is decided.
_JUDGED = ("normal", "cost_ratio", "wrong_defect_cost", "cost_matrix")
# judge's scores are wanted here, not its intervals.
_FEW = 20


def compare(
    paths: Sequence[Path | str],
    *,
    score: str = "f1_macro",
    baseline: str | None = None,
    refit: Mapping[str, Any] | None = None,
    out: Path | None = None,
    mlflow: bool = True,
) -> tuple[Comparison, Path]:
    """Compare runs on the test wafers they share; write the result, record it and print it.

    Args:
        paths: at least two run folders, or folders that hold them.
        score: which score to compare by.
        baseline: the setting to compare with; None: the best on val, out of fold.
        refit: `decision`, `tta`, `calibration`: evaluation settings to fit anew on val for all runs alike; None or
            empty: every run's own deployed predictor.
        out: folder for the files, made where it is missing; None: a new one in outputs/comparisons.
        mlflow: whether to record the comparison in MLflow, if the runs were.

    Returns:
        The comparison and the folder it was written to.

    Raises:
        UserError: runs are missing, unfinished, damaged, given twice, or not of the same data, split and classes.
    """
    out = out or _outputs() / "comparisons" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    if (out / DOCUMENT).exists():
        raise UserError(f"{out} already holds a comparison; give another --out")
    folders, unfinished = find_runs(paths)
    if len(folders) < 2:
        raise UserError(f"a comparison needs at least two runs, but only {folders[0]} was found; name another")
    runs = [read_run(folder) for folder in folders]
    check_comparable(runs)
    wanted = {key: value for key, value in (refit or {}).items() if value is not None}
    judged, notes = _judged_by(runs, wanted)
    if unfinished:
        notes.append("Left out, without predictions: " + ", ".join(run.name for run in unfinished))
    test = wafers(runs[0].table, "test")
    answers = _answers(runs, judged, bool(wanted), score)
    settings: dict[str, Any] = {
        "score": score,
        "baseline": baseline,
        "resamples": judged.resamples,
        "seed": judged.seed,
    }
    found = compare_answers(answers, test, normal=judged.normal, cost=_costs(judged, test), **settings)
    if not wanted and len({run.settings for run in runs}) > 1:
        notes.append("The runs decide in different ways; --decision, --tta and --calibration judge all alike")
    write_comparison(out, found, notes)
    print(f"\n{tables.console(found, notes)}\n\nwritten to {out}", flush=True)
    if mlflow:
        _record(out, runs, settings | wanted)
    return found, out


def _judged_by(runs: Sequence[FinishedRun], wanted: Mapping[str, Any]) -> tuple[Evaluation, list[str]]:
    """The first run's evaluation settings, by which all are judged, with what is fitted anew; and notes."""
    settings = []
    for run in runs:
        with run.named():
            settings.append(run.settings)
    first, notes = replace(settings[0], **wanted), []
    others = [
        run.folder.name
        for run, own in zip(runs, settings, strict=True)
        if any(getattr(own, key) != getattr(first, key) for key in _JUDGED)
    ]
    if others:
        whose = runs[0].folder.name
        notes.append(f"Costs and normal classes are those of {whose}; other ones were set for: {', '.join(others)}")
    if wanted:
        decision = _decision(first)
        rest = {key: value for key, value in decision.items() if key != "_target_" and value is not None}
        fitted = {"tta": first.tta, "calibration": first.calibration, "decision": first.decision} | rest
        how = ", ".join(f"{key}={value}" for key, value in fitted.items())
        notes.append(f"All runs were evaluated anew, fitted on val: {how}")
    elif bare := [run.folder.name for run in runs if run.predictor is None]:
        notes.append(f"Without {PREDICTOR}, so judged by argmax of one view, uncalibrated: {', '.join(bare)}")
    return first, notes


def _costs(judged: Evaluation, part: Wafers) -> Any:
    return optional_costs(judged, part.class_names, part.target_kind)


def _answers(runs: Sequence[FinishedRun], judged: Evaluation, refit: bool, score: str) -> list[Answers]:
    """What every run says of the test wafers, by its deployed predictor or by one fitted anew."""
    without = [run.folder for run in runs if run.predictor is None]
    if not refit and without and len(without) < len(runs):
        raise UserError(
            f"{without[0]} has no {PREDICTOR}, other runs have one, so their decisions are not of a kind; add "
            "--decision argmax (or another rule) to evaluate all alike"
        )
    levels = factors.settings([run.config | {"evaluation": None if refit else _deployed(run)} for run in runs])
    answers: list[Answers] = []
    seen: dict[tuple[str, bytes], FinishedRun] = {}
    for run, own in zip(runs, levels, strict=True):
        with run.named():
            if refit:
                fitted = fit_predictor(wafers(run.table, "val", judged.tta), judged)
                predictor, val = fitted.predictor, _on_val(run, fitted, judged)
            else:
                predictor = run.predictor or Predictor.plain(run.table.class_names, run.table.target_kind)
                val = _known_on_val(run, predictor, judged, score)
            shown = wafers(run.table, "test", predictor.tta)
        known = seen.setdefault((factors.name(own), shown.logits.tobytes()), run)
        if known is not run:
            raise UserError(f"{known.folder} and {run.folder} hold the same predictions of one run; name it once")
        probabilities = predictor.probabilities(shown.logits)
        decisions = predictor.decision(probabilities)
        answers.append(Answers(run.folder.name, own, run.config["seed"], probabilities, decisions, val))
    return answers


def _known_on_val(run: FinishedRun, predictor: Predictor, judged: Evaluation, score: str) -> dict[str, float]:
    """The scores on val of a deployed predictor, out of fold: from the run's own report, else by fitting it again."""
    own = predictor.settings
    if run.predictor and all(getattr(own, key) == getattr(judged, key) for key in _JUDGED):
        scores = val_scores(run.folder)
        if score in scores:
            return scores
    if "val" not in run.table.splits():
        return {}
    return _on_val(run, fit_predictor(wafers(run.table, "val", own.tta), own), judged)


def _on_val(run: FinishedRun, fitted: Fitted, judged: Evaluation) -> dict[str, float]:
    """Scores of a predictor on the val wafers, each judged by a fit that did not see it."""
    val = wafers(run.table, "val", fitted.predictor.tta)
    what = (val.target, fitted.decisions, fitted.probabilities, val.class_names, val.target_kind)
    return judge(*what, normal=judged.normal, cost=_costs(judged, val), resamples=_FEW)[0]


def _deployed(run: FinishedRun) -> dict[str, Any] | None:
    """The choices behind a run's predictor, for telling settings apart: its own, which may be newer than the config."""
    if run.predictor is None:
        return None
    own = run.predictor.settings
    return {"tta": own.tta, "calibration": own.calibration, "decision": _decision(own)}


def _decision(settings: Evaluation) -> dict[str, Any]:
    """A decision rule with the numbers that decide it, in the shape of a config's node."""
    node: dict[str, Any] = {"_target_": f"evaluation.{settings.decision}"}
    if settings.decision == "recall":
        return node | {"max_escape_rate": settings.max_escape_rate, "normal": settings.normal}
    if settings.decision != "cost":
        return node
    if settings.cost_matrix is not None:
        return node | {"cost_matrix": settings.cost_matrix}
    costs = {key: getattr(settings, key) for key in ("cost_ratio", "wrong_defect_cost")}
    return node | costs | {"normal": settings.normal}


def _outputs() -> Path:
    """Where this checkout's runs write, as conf/paths has it."""
    return Path(os.environ.get("WAFER_LAB_OUTPUTS", "outputs")).absolute()


def _store() -> Path:
    """The MLflow store of this checkout, as conf/tracking has it."""
    return _outputs() / "mlflow.db"


def own_tracker(experiment: str) -> MLflowTracker:
    """What `tracking=mlflow` of this checkout records into, whatever the runs' configs say."""
    return MLflowTracker(None, experiment, _outputs() / "mlartifacts", _store())


def _record(out: Path, runs: Sequence[FinishedRun], settings: Mapping[str, Any]) -> None:
    """Keep the files as a run named comparison in the experiment of the runs, if they were recorded in MLflow.

    Of the runs' configs only the experiment's name is taken: an address in them could be anybody's.
    """
    nodes = [run.config.get("tracking", {}) for run in runs]
    experiment = next((str(node["experiment"]) for node in nodes if _is_mlflow(node)), None)
    if experiment is None:
        return
    if not os.environ.get("MLFLOW_TRACKING_URI") and not _store().is_file():
        said = f"not recorded in MLflow: there is no {_store()}; set MLFLOW_TRACKING_URI to the store of the runs"
        print(said, file=sys.stderr)
        return
    try:
        tags = {"compared": " ".join(filter(None, (run_id(run.folder) for run in runs)))}
        tags |= {"git_revision": git_revision()}
        tags |= {key: getattr(runs[0].table, key) for key in ("split_digest", "data_fingerprint")}
        config = {**settings, "runs": {str(k): str(run.folder.absolute()) for k, run in enumerate(runs)}}
        with own_tracker(experiment).run("comparison", config, tags) as record:
            for file in sorted(out.iterdir()):
                record.log_artifact(file)
            print(f"MLflow  {record.how_to_open()}", flush=True)
    except UserError as error:
        print(f"warning: not recorded in MLflow: {error}; --no-mlflow says not to", file=sys.stderr)


def _is_mlflow(node: Mapping[str, Any]) -> bool:
    return node.get("_target_") == _MLFLOW and isinstance(node.get("experiment"), str)
