"""Workflows: plain functions from a composed config to a result."""

import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from wafer_lab.errors import UserError
from wafer_lab.processes import rank


def run(cfg: DictConfig) -> Any:
    """Run the workflow that a config names.

    Args:
        cfg: A composed and validated config.

    Returns:
        The result's monitored value, which sweeps optimise.
    """
    from wafer_lab.config.build import function

    if sys.stderr.isatty() and rank() == 0:
        print("loading PyTorch and Lightning", file=sys.stderr)

    from wafer_lab.workflows.faults import explained, terminable

    folder = Path(cfg.paths.run)
    try:
        with terminable(), explained(folder):
            return function(cfg.workflow)(cfg).monitored
    except UserError:
        if rank() == 0 and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()  # Hydra made it before the mistake was found
        raise
