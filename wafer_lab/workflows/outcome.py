"""What a judged run leaves in its folder, says on the console and gives to the tracker."""

import csv
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wafer_lab.data.readers import decode_grey
from wafer_lab.data.store import Store
from wafer_lab.errors import UserError
from wafer_lab.evaluation import external, neighbours
from wafer_lab.evaluation.drawings import write_figures
from wafer_lab.evaluation.html import write_html
from wafer_lab.evaluation.judgement import Judgement
from wafer_lab.evaluation.masks import FILE as MASKS
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.provenance import provenance
from wafer_lab.evaluation.report import headline, write_report
from wafer_lab.files import write_text
from wafer_lab.tracking.tracker import Run, log_files

_FACTS = "facts.json"
_TIMES = "times_judged_on_test"
_KEPT = (
    external.TABLE,
    external.FACTS,
    "metrics.json",
    "predictions.parquet",
    MASKS,
    neighbours.FILE,
    "encoder.safetensors",
    "predictor.json",
    "rules.csv",
    "report.md",
    "report.html",
    "figures",
)


@dataclass(frozen=True)
class Gallery:
    """Pictures of wafers for the report.

    Attributes:
        picture: Row in the source -> (H, W) uint8 die states or grey levels.
        kind: `maps` or `images`.
    """

    picture: Callable[[int], NDArray[np.uint8]]
    kind: str

    @classmethod
    def of(cls, store: Store) -> "Gallery":
        """The wafers of a store."""
        if store.header.kind == "maps":
            return cls(store.map, "maps")
        root, names = Path(store.root), store.path or []
        return cls(lambda row: decode_grey(root / names[row]), "images")


def remove(run_dir: Path) -> None:
    """Take away what an earlier end of a run left, before the run goes on and it is true no more."""
    for name in (*_KEPT, _FACTS):
        if (run_dir / name).is_dir():
            shutil.rmtree(run_dir / name)
        else:
            (run_dir / name).unlink(missing_ok=True)


def write_facts(run_dir: Path, facts: Mapping[str, Any]) -> None:
    """Keep how a run was made, for reports that are written later."""
    write_text(run_dir / _FACTS, json.dumps(dict(facts), indent=1))


def write(
    run_dir: Path, judgement: Judgement, config: Mapping[str, Any], gallery: Gallery | None, out: Path | None = None
) -> None:
    """Write predictor.json, metrics.json, the figures, rules.csv, report.md and report.html.

    Args:
        run_dir: The run's folder, which holds its history and facts.
        judgement: What is known of the run.
        config: Its resolved config.
        gallery: Its wafers; None where the data is not at hand.
        out: Another folder to write to.
    """
    out = out or run_dir
    scores, intervals = judgement.scores, judgement.intervals
    sides = ("low", "high")
    bounds = {f"{name}/{side}": v for name, pair in intervals.items() for side, v in zip(sides, pair, strict=True)}
    task = config["task"]
    if config["figures"]:
        picture, kind = (gallery.picture, gallery.kind) if gallery else (None, "maps")
        write_figures(out, judgement, _history(run_dir), task["monitor"], task["mode"], picture, kind)
    known = _read_facts(run_dir)
    known[_TIMES] = known.get(_TIMES, 0) + 1
    write_facts(run_dir, known)
    if known[_TIMES] > 1:
        known["judged_with"] = provenance()["command"]
    judgement.predictor.write(out / "predictor.json")
    write_text(out / "metrics.json", json.dumps(scores | bounds, indent=1))
    facts = {"name": config["name"], "seed": config["seed"], "data_seed": config["data"]["seed"], **known}
    facts["monitor"] = task["monitor"]
    write_html(write_report(out, judgement, facts))


def publish(run_dir: Path, judgement: Judgement, tracked: Run) -> None:
    """Give the tracker the scores of test and external test and the files, and tell the person how it went."""
    told = ("test/", f"{external.SPLIT}/")
    tracked.log_metrics({name: value for name, value in judgement.scores.items() if name.startswith(told)})
    log_files(tracked, run_dir, _KEPT)
    print("\n".join(["", *summary(run_dir, judgement)]), flush=True)
    if tracked.how_to_open():
        print(f"MLflow  {tracked.how_to_open()}", flush=True)


def write_candidate(run_dir: Path, predictions: Predictions, scores: Mapping[str, float], tracked: Run) -> None:
    """Leave what a run is chosen by, in predictions.parquet and metrics.json: val alone, without intervals."""
    predictions.write(run_dir / "predictions.parquet")
    write_text(run_dir / "metrics.json", json.dumps(dict(scores), indent=1))
    tracked.log_metrics(dict(scores))
    tracked.log_artifact(run_dir / "metrics.json")


def summary(folder: Path, judgement: Judgement) -> list[str]:
    """The main scores, and where the report lies."""
    report = next(path for name in ("report.html", "report.md") if (path := folder / name).exists())
    known = [*judgement.notes, *(external.summary_notes(judgement.external) if judgement.external else ())]
    notes = [f"note: {note}" for note in known]
    return [*headline(judgement.scores, judgement.intervals), *([""] if notes else []), *notes, "", f"report  {report}"]


def _history(run_dir: Path) -> list[dict[str, float]]:
    file = run_dir / "history.csv"
    if not file.is_file():
        return []
    with file.open(newline="") as lines:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(lines)]


def _read_facts(run_dir: Path) -> dict[str, Any]:
    file = run_dir / _FACTS
    if not file.is_file():
        return {}
    try:
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}); delete it to go on without it") from error
    return facts
