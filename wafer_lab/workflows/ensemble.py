"""Ensembles: several models that answer together, judged once as one model on the test wafers that all share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from omegaconf import DictConfig

from wafer_lab.config.build import build, resolved
from wafer_lab.errors import UserError
from wafer_lab.evaluation.ensembles import report
from wafer_lab.evaluation.ensembles.combination import Combine, aligned, calibrated, ensemble_of
from wafer_lab.evaluation.ensembles.findings import Findings, find
from wafer_lab.evaluation.ensembles.members import Members
from wafer_lab.evaluation.judgement import judge_predictions
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.provenance import provenance
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.tracking.tracker import Run, log_files
from wafer_lab.workflows import outcome
from wafer_lab.workflows.evaluate import gallery
from wafer_lab.workflows.finished import FinishedRun, check_comparable, read_run, run_id
from wafer_lab.workflows.members import Runs, adopted, finished, plan, unique_names
from wafer_lab.workflows.nested import parent
from wafer_lab.workflows.sources import Given, check_fit


@dataclass(frozen=True)
class EnsembleResult:
    """What an ensemble leaves.

    Attributes:
        run_dir: Its folder, to be evaluated and compared as any run's; members that it trained have folders within.
        monitored: Its macro F1 on val, out of fold.
        scores: Flat metrics of val and test, as in metrics.json.
        predictions: Its table.
        findings: How it compares with its members and with smaller ensembles.
    """

    run_dir: Path
    monitored: float
    scores: dict[str, float]
    predictions: Predictions
    findings: Findings


def ensemble(
    cfg: DictConfig,
    seeds: Sequence[int] | None = None,
    models: Sequence[str] | None = None,
    sources: Mapping[str, Given] | None = None,
    folds: int | None = None,
    runs: Runs | None = None,
    combine: Combine = "probabilities",
    subsets: int = 20,
) -> EnsembleResult:
    """Train members, or take finished runs, and judge what they say together.

    Started again in its folder, it keeps the members that were finished and goes on with the others.

    Args:
        cfg: A composed and validated config.
        seeds: See `members.plan`; so are `models`, `sources` and `folds`.
        models: Likewise.
        sources: Likewise.
        folds: Likewise.
        runs: Finished runs, see `members.finished`; the other four are not used then.
        combine: See `combination.combined`.
        subsets: Ensembles of one size that are judged at most, for the curve over sizes.

    Returns:
        The result; the files lie in `cfg.paths.run`.

    Raises:
        UserError: There are fewer than two members, they are not of one split, data and classes, or as `fit`.
    """
    if combine not in get_args(Combine):
        raise UserError(f"there is no workflow.combine={combine}; choose {' or '.join(get_args(Combine))}")
    if subsets < 1:
        raise UserError(f"workflow.subsets={subsets} must be at least 1")
    settings: Evaluation = build(cfg.evaluation)
    done, groups = finished(runs) if runs else ([], [])
    cfg = adopted(cfg, done[0]) if done else cfg
    if cfg.data.target == "mask":
        raise UserError("an ensemble combines the labels of whole wafers, not masks; use data with labels")
    planned = [] if done else plan(cfg, seeds, models, sources, folds)
    starts = {one.source.name: one.source for one in planned}
    first = [one.pretraining for one in starts.values() if one.pretraining is not None]
    tags = {"members": " ".join(filter(None, (run_id(run.folder) for run in done)))} if done else {}
    with parent(cfg, [*first, *(one.config for one in planned)], tags) as tracked:
        check_fit((one.source, one.config) for one in planned)
        made = provenance()
        weights = {name: start.ready() for name, start in starts.items()}
        trained = [read_run(one.trained(weights[one.source.name])) for one in planned]
        if planned:
            check_comparable(trained)
        names = [one.name for one in planned] or unique_names([run.folder for run in done])
        members = _members(done or trained, names, [one.group for one in planned] or groups, combine, settings)
        return _judge(cfg, members, made, subsets, bool(planned), tracked)


def _members(
    runs: Sequence[FinishedRun], names: Sequence[str], groups: Sequence[str], how: Combine, settings: Evaluation
) -> Members:
    print(f"combining {len(runs)} members", flush=True)
    tables = tuple(calibrated(table, settings) for table in aligned([run.table for run in runs], settings))
    return Members(tuple(names), tuple(groups), tables, how, settings)


def _judge(
    cfg: DictConfig, members: Members, made: Mapping[str, object], subsets: int, nested: bool, tracked: Run
) -> EnsembleResult:
    """Judge the ensemble as any model, then what it gains by being several; write and log everything."""
    run_dir, config = Path(cfg.paths.run), resolved(cfg)
    table = ensemble_of(members.tables, members.how)
    table.write(run_dir / "predictions.parquet")
    facts = {**made, "split_digest": table.split_digest, "data_fingerprint": table.data_fingerprint}
    facts |= {"members": ", ".join(members.names), "combine": members.how, "more": "[ensemble.md](ensemble.md)"}
    outcome.write_facts(run_dir, facts | ({"run_id": tracked.id} if tracked.id else {}))
    judgement = judge_predictions(table, members.settings)
    outcome.write(run_dir, judgement, config, gallery(config, table))
    findings = find(members, subsets)
    page = report.write(run_dir, str(cfg.name), findings, bool(cfg.figures), links=nested)
    outcome.publish(run_dir, judgement, tracked)
    flat = report.flat(findings)
    tracked.log_metrics({key: value for key, value in flat.items() if key.startswith(("ensemble/", "diversity/"))})
    log_files(tracked, run_dir, report.FILES)
    print("\n".join(["", *report.headline(findings), "", f"ensemble  {page}"]), flush=True)
    return EnsembleResult(run_dir, judgement.val.scores["f1_macro"], judgement.scores, table, findings)
