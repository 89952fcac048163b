"""Stopping when told to: what was trained so far is saved, also within an epoch, and nothing of it is done again."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint

from wafer_lab.errors import Terminated

# SIGTERM: a scheduler takes the machine back. SIGUSR1: SLURM will, with --signal=USR1@<seconds>.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopOnSignal(Checkpoint):
    """After SIGTERM or SIGUSR1, finish the step, save `last.ckpt` and end with status 128 + the signal's number.

    In validation, the epoch is finished first: it ends with a `last.ckpt` of its own. It is a `Checkpoint`, so that
    Lightning runs it after the callbacks that a step changes, such as averaged weights.

    A checkpoint within an epoch needs more than Lightning keeps: how many batches are done, for the sampler, and what
    the task's `epoch_metrics` have counted so far.

    Args:
        path: The run's `last.ckpt`.
    """

    def __init__(self, path: str | Path):
        self.path = str(path)
        self._signum: int | None = None
        self._within: dict[str, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals over from Lightning, which would stop without saving; its own teardown gives them back."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._signum = signum

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save and end, unless gradients are being gathered or the epoch's own checkpoint comes next."""
        done = batch_idx + 1
        between_steps = done % trainer.accumulate_grad_batches == 0
        if not between_steps or trainer.fit_loop.epoch_loop.batch_progress.is_last_batch or not self._told(trainer):
            return
        metrics = {name: metric.metric_state for name, metric in pl_module.epoch_metrics().items()}
        self._within = {"batches": done, "metrics": metrics}
        trainer.save_checkpoint(self.path)
        self._end()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End, if told to after the last step of the epoch before."""
        if self._told(trainer):
            self._end()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End, if told to in the last epoch."""
        if self._told(trainer):
            self._end()

    def _told(self, trainer: pl.Trainer) -> bool:
        """Whether any process of the run was told to stop; they stop at the same step."""
        told = self._signum is not None
        return told if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(told, all=False)

    def _end(self) -> None:
        raise Terminated(self._signum or signal.SIGTERM)

    def state_dict(self) -> dict[str, Any]:
        """`batches` and `metrics` of an epoch that is saved within; empty at the end of one."""
        return self._within

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Let the sampler and the epoch's metrics go on from where they were."""
        within = checkpoint.get("callbacks", {}).get(self.state_key)
        if within:
            trainer.datamodule.resumed_at = (checkpoint["epoch"], within["batches"])
            for name, metric in pl_module.epoch_metrics().items():
                for state, value in within["metrics"][name].items():
                    setattr(metric, state, value.to(metric.device))
