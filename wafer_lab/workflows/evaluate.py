"""Judging a finished run again, from its predictions table alone: other views, calibration, decisions or costs."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from wafer_lab.errors import UserError
from wafer_lab.evaluation.drawings import MASK_SHEET
from wafer_lab.evaluation.external import External, judge_external
from wafer_lab.evaluation.judgement import Judgement, judge_predictions
from wafer_lab.evaluation.masks import FILE as MASKS
from wafer_lab.evaluation.masks import JudgedMasks, Masks, judge_masks
from wafer_lab.evaluation.neighbours import judge_neighbours
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.evaluation.settings import Evaluation
from wafer_lab.workflows import outcome
from wafer_lab.workflows.finished import PREDICTOR, read_config, settings_of, store_of
from wafer_lab.workflows.outcome import Gallery


def evaluate(
    run: Path,
    changes: Mapping[str, Any],
    out: Path | None = None,
    external: Path | None = None,
    renamed: Mapping[str, str | None] | None = None,
) -> Judgement:
    """Fit the predictor of a run anew and write its report again.

    Args:
        run: The run's folder.
        changes: Settings of `Evaluation` that differ from those of the run.
        out: Folder to write to; None writes into the run's own.
        external: Other data to test the run's network on; None keeps the external test that it has, if any.
        renamed: What classes of that data are called in the run, None to leave one out.

    Returns:
        The judgement; predictor.json, metrics.json, rules.csv, figures and reports are written.

    Raises:
        UserError: The run's files are missing or damaged, or the settings or the external data do not suit them.
    """
    if renamed and external is None:
        raise UserError("--rename is about the classes of --external; name that too")
    config = read_config(run)
    parts = sorted(file.parent.name for file in run.glob("*/predictions.parquet"))
    if parts and not (run / PREDICTOR).is_file():  # an ensemble has its own beside those of its members
        raise UserError(f"{run} holds several models, each with a predictor; evaluate one of them: {', '.join(parts)}")
    predictions = Predictions.read(run / "predictions.parquet")
    judgement = judge_predictions(predictions, replace(settings_of(config), **changes))
    judgement = replace(judgement, masks=_masks(run, config, judgement.settings, predictions, out))
    if external is None:
        judgement = judge_external(judgement, External.read(run, predictions))
    else:
        from wafer_lab.workflows.external import external_test_of  # which takes torch; judging again does not

        tested = external_test_of(run, config, predictions, external, renamed or {})
        judgement = judge_external(judgement, tested)
        tested.write(out or run)
    judgement = judge_neighbours(judgement, run)
    outcome.write(run, judgement, config, gallery(config, predictions), out)
    return judgement


def _masks(
    run: Path, config: Mapping[str, Any], settings: Evaluation, predictions: Predictions, out: Path | None
) -> JudgedMasks | None:
    """What the run's table of masks says, where it has one; the sheet of wafers goes to `out` as it is."""
    if config["data"].get("target") != "mask":
        return None
    masks = Masks.read(run / MASKS)
    for name in ("class_names", "split_digest", "data_fingerprint"):
        if getattr(masks, name) != getattr(predictions, name):
            raise UserError(f"{run / MASKS} and the predictions beside it are of different {name}; train again")
    if out and out.resolve() != run.resolve() and (sheet := run / "figures" / MASK_SHEET).is_file():
        (out / "figures").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sheet, out / "figures" / MASK_SHEET)
    return judge_masks(masks, settings)


def gallery(config: Mapping[str, Any], predictions: Predictions) -> Gallery | None:
    """The run's wafers, where its data is still at hand and what it was."""
    try:
        store = store_of(config)
    except (UserError, LookupError, TypeError, ValueError, AttributeError, OSError):
        return None
    return Gallery.of(store) if store.header.digest == predictions.data_fingerprint else None
