"""What a study leaves in its folder: the table of trials, figures, a report, and the best trials as experiments."""

import csv
import io
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from wafer_lab.evaluation.html import write_html
from wafer_lab.files import replacing, write_text
from wafer_lab.tracking.tracker import Run, log_files
from wafer_lab.workflows.study import experiment
from wafer_lab.workflows.study.console import short
from wafer_lab.workflows.study.settings import Study
from wafer_lab.workflows.study.storage import REASON, WORKER, finished

_FEW = 10  # complete trials, below which shares of the variation are shares of chance
_UNITS = {"latency": "latency (ms per wafer)", "cost": "cost per val wafer"}


def write(folder: Path, study: optuna.Study, settings: Study, overrides: Sequence[str], tracked: Run) -> None:
    """Write trials.csv, report.md and .html, figures/ and experiment/best.yaml; give them to the tracker; say where.

    Args:
        folder: of the study.
        study: at any stage.
        settings: of the study.
        overrides: the command line without what is the study's.
        tracked: the study's run.
    """
    trials = finished(study)
    names = [one.metric for one in settings.targets]
    write_text(folder / "trials.csv", table(trials, names))
    best = chosen(study, settings)
    for place, trial in enumerate(best):
        text = experiment.text(trial, study, settings, overrides, folder)
        write_text(folder / "experiment" / f"{'best' if place == 0 else f'trial_{trial.number}'}.yaml", text)
    drawn = _figures(folder / "figures", study, settings, trials) if find_spec("matplotlib") else []
    page = write_html(write_text(folder / "report.md", _report(settings, trials, best, folder, drawn)))
    if best:
        tracked.log_metrics({f"best/{name}": value for name, value in zip(names, best[0].values, strict=True)})
    log_files(tracked, folder, ("trials.csv", "report.md", "report.html", "figures", "experiment"))
    print("\n".join(["", *_headline(settings, best), f"report  {page}"]), flush=True)
    if best:
        print(f"train   {experiment.command(folder)}", flush=True)
    if tracked.how_to_open():
        print(f"MLflow  {tracked.how_to_open()}", flush=True)


def chosen(study: optuna.Study, settings: Study) -> list[FrozenTrial]:
    """The best trial; of several objectives those on the Pareto front, the best by the first objective first."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    first = settings.targets[0]
    kept = complete if len(settings.targets) == 1 else study.best_trials
    ordered = sorted(kept, key=lambda trial: trial.values[0], reverse=first.direction == "max")
    return ordered[:1] if len(settings.targets) == 1 else ordered


def table(trials: Sequence[FrozenTrial], names: Sequence[str]) -> str:
    """One row per finished trial as CSV; the value of a pruned trial is that of its last report."""
    keys = list(dict.fromkeys(key for trial in trials for key in trial.params))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["trial", "state", *names, "seconds", "reports", *keys, "repeats", "reason", "worker"])
    for trial in trials:
        values = trial.values or [""] * len(names)
        spent = f"{trial.duration.total_seconds():.1f}" if trial.duration else ""
        about = [trial.user_attrs.get(name, "") for name in ("repeats", REASON, WORKER)]
        sampled = [trial.params.get(key, "") for key in keys]
        state = trial.state.name.lower()
        writer.writerow([trial.number, state, *values, spent, len(trial.intermediate_values), *sampled, *about])
    return text.getvalue()


def _headline(settings: Study, best: Sequence[FrozenTrial]) -> list[str]:
    if not best:
        return ["no trial is complete"]
    values = ", ".join(f"{one.metric} {v:.4f}" for one, v in zip(settings.targets, best[0].values, strict=True))
    sampled = ", ".join(f"{key}={short(value)}" for key, value in best[0].params.items())
    front = f"; {len(best)} trial{'s' * (len(best) > 1)} on the Pareto front" if len(settings.targets) > 1 else ""
    return [f"best    trial {best[0].number}: {values} with {sampled}{front}"]


def _report(
    settings: Study, trials: Sequence[FrozenTrial], best: Sequence[FrozenTrial], folder: Path, drawn: Sequence[str]
) -> str:
    count = {state: sum(trial.state == state for trial in trials) for state in TrialState}
    lines = [
        f"# Study {settings.name}",
        "",
        f"{len(trials)} of {settings.n_trials} trials finished: {count[TrialState.COMPLETE]} complete, "
        f"{count[TrialState.PRUNED]} pruned, {count[TrialState.FAIL]} failed. Sampler {settings.sampler}, pruner "
        f"{settings.pruner}, {settings.seeds} seed{'s' * (settings.seeds > 1)} per trial.",
        "",
        *_headline(settings, best),
        "",
        "Every trial was judged on val alone; no trial predicted a test wafer. The best of many val scores is better "
        "than that model is: some of its lead is luck. Judge the winner once on test, beside the default recipe, with "
        "several seeds:",
        "",
        f"    {experiment.command(folder)} seed=0,1,2 --multirun",
        "",
        "## Trials",
        "",
        *_rows(settings, trials, {trial.number for trial in best}),
        "",
    ]
    if (complete := count[TrialState.COMPLETE]) < _FEW:
        lines += [f"Importance needs {_FEW} complete trials; here are {complete}.", ""]
    for name in drawn:
        lines += [f"## {name.capitalize()}", "", f"![{name}](figures/{name}.png)", ""]
    return "\n".join(lines)


def _rows(settings: Study, trials: Sequence[FrozenTrial], best: set[int]) -> list[str]:
    """The trials as a Markdown table, best first, those without a value last."""
    keys = list(dict.fromkeys(key for trial in trials for key in trial.params))
    names = [one.metric for one in settings.targets]
    sign = -1 if settings.targets[0].direction == "max" else 1
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    ordered = sorted(trials, key=lambda t: (states.index(t.state), sign * t.values[0] if t.values else 0))
    rows = [["trial", "state", *names, "seconds", *keys], ["---"] * (3 + len(names) + len(keys))]
    for trial in ordered:
        values = [f"{value:.4f}" for value in trial.values or ()] or [""] * len(names)
        spent = f"{trial.duration.total_seconds():.0f}" if trial.duration else ""
        state = (
            f"failed: {trial.user_attrs.get(REASON)}" if trial.state == TrialState.FAIL else trial.state.name.lower()
        )
        sampled = [short(trial.params[key]) if key in trial.params else "" for key in keys]
        number = f"**{trial.number}**" if trial.number in best else str(trial.number)
        rows.append([number, state.replace("|", "/"), *values, spent, *sampled])
    return [f"| {' | '.join(row)} |" for row in rows]


# ------------------------------------------------------------------------------------------------- figures


def _figures(folder: Path, study: optuna.Study, settings: Study, trials: Sequence[FrozenTrial]) -> list[str]:
    """Draw what there is enough of; the names of the files without their ending."""
    from wafer_lab.evaluation import figures

    complete = np.array([trial.state == TrialState.COMPLETE for trial in trials])
    if not complete.any():
        return []
    made: dict[str, Any] = {}
    numbers = np.array([trial.number for trial in trials])
    for place, one in enumerate(settings.targets):
        scores = np.array([trial.values[place] if trial.values else np.nan for trial in trials])
        tail = "" if len(settings.targets) == 1 else f"_{one.metric.replace('/', '_')}"
        made[f"history{tail}"] = figures.search_history(numbers, scores, complete, one.metric, one.direction)
        shares = importances(study, place)
        if shares:
            made[f"importance{tail}"] = figures.importance(shares, one.metric)
        made[f"slices{tail}"] = figures.slices(_slices(settings, trials), scores, complete, one.metric, one.direction)
    if len(settings.targets) > 1:
        values = np.array([trial.values for trial, done in zip(trials, complete, strict=True) if done])
        front = {trial.number for trial in study.best_trials}
        known = numbers[complete]
        on_front = np.array([number in front for number in known])
        first, second = (_UNITS.get(one.metric, one.metric) for one in settings.targets[:2])
        made["pareto"] = figures.pareto(values[:, 0], values[:, 1], on_front, known, (first, second))
    for name, figure in made.items():
        with replacing(folder / f"{name}.png") as beside:
            figures.save(figure, beside)
    return list(made)


def _slices(settings: Study, trials: Sequence[FrozenTrial]) -> list[Any]:
    from wafer_lab.evaluation.figures import Slice

    entries = [entry for entry in settings.entries if any(entry.key in trial.params for trial in trials)]
    return [Slice(one.key, [trial.params.get(one.key) for trial in trials], one.log) for one in entries]


def importances(study: optuna.Study, place: int) -> dict[str, float]:
    """How much each key matters for being among the best trials of an objective; empty where too few differ to tell.

    PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255) over the complete trials. The shares sum to 1.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < _FEW or len({trial.values[place] for trial in complete}) < 2:
        return {}
    # With a target Optuna takes the lowest values for the best.
    sign = -1 if study.directions[place] == optuna.study.StudyDirection.MAXIMIZE else 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(optuna.importance.get_param_importances(study, target=lambda trial: sign * trial.values[place]))
