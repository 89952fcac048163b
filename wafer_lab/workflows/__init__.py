"""Workflows: plain functions from a composed config to a result."""

from typing import Any

from omegaconf import DictConfig


def run(cfg: DictConfig) -> Any:
    """Run the workflow that a config names.

    Args:
        cfg: A composed and validated config.

    Returns:
        The result's monitored value, which sweeps optimise.
    """
    from wafer_lab.config.build import function

    return function(cfg.workflow)(cfg).monitored
