"""Several processes that train one model: all fit, and the first alone opens the run, judges the model and writes."""

import lightning.pytorch as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from wafer_lab.config.rules import several_devices
from wafer_lab.errors import UserError
from wafer_lab.processes import launched


def check(cfg: DictConfig, nested: bool) -> None:
    """Refuse several devices where their processes could not be started rightly.

    Lightning starts processes by repeating the command line. So it can be the command of one model only; torchrun and
    SLURM start all processes at once, and need none.

    Args:
        cfg: A composed and validated config.
        nested: Whether the fit is one of several in this process.

    Raises:
        UserError: There are several devices, and the command trains several models.
    """
    if not several_devices(cfg):
        return
    if nested:
        raise UserError(
            "a fit within another run or study uses one device; set trainer.devices=1 and trainer.num_nodes=1, or give "
            "every model a command of its own"
        )
    sweeps = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    # Hydra's own launcher runs all jobs in this process, and processes but the first end with the first job.
    if sweeps and (not launched() or "BasicLauncher" in str(HydraConfig.get().launcher._target_)):
        raise UserError(
            "--multirun goes through its jobs in one process, and several devices need processes of their own; "
            "start one command per run, or use hydra/launcher=submitit_slurm with a task per device"
        )


def is_first(trainer: pl.Trainer) -> bool:
    """Whether this process writes and speaks for all.

    Raises:
        UserError: A launcher started several processes, and the trainer knows of one.
    """
    if launched() > 1 and trainer.world_size == 1:
        raise UserError(
            f"{launched()} processes were started, but trainer.devices and trainer.num_nodes are 1, so each would "
            "train a model of its own; use trainer=ddp_nodes"
        )
    return bool(trainer.is_global_zero)


def part(trainer: pl.Trainer) -> None:
    """Dissolve the group after training; the first process goes on, the others end.

    Raises:
        SystemExit: 0, in every process but the first.
    """
    if trainer.world_size == 1:
        return
    trainer.strategy.barrier()
    torch.distributed.destroy_process_group()
    if not trainer.is_global_zero:
        raise SystemExit(0)
