"""What a study leaves in its folder: the table of trials, figures, a report, and the best trial as an experiment."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from wafer_lab.evaluation.html import write_html
from wafer_lab.files import write_text
from wafer_lab.tracking.tracker import Run
from wafer_lab.workflows.study.settings import Study
from wafer_lab.workflows.study.storage import REASON, WORKER


def write(folder: Path, study: optuna.Study, settings: Study, overrides: Sequence[str], tracked: Run) -> None:
    """Write everything."""
