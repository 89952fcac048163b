"""A loss that is not a number stops the run, with the rows of the wafers that it was computed of."""

import json
import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from wafer_lab.data.batches import rows
from wafer_lab.errors import DivergedError
from wafer_lab.files import write_text

FILE = "diverged.json"
_EVERY = 50  # steps; reading a loss waits for the device


class FiniteLoss(Callback):
    """Look at every step's training loss, 50 at a time, and before each validation and each checkpoint.

    So no checkpoint is ever written after a loss that was not finite. Losses and rows wait on the device meanwhile.

    Args:
        folder: The run's folder, for diverged.json.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._steps: list[tuple[int, Tensor, Tensor]] = []  # batch, loss, rows: those not yet looked at
        self._before: tuple[int, Tensor, Tensor] | None = None  # the last one that was

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Agree on the folder: processes that a launcher started know of none but the first one's."""
        if trainer.world_size > 1:
            self.folder = Path(trainer.strategy.broadcast(str(self.folder)))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note the step."""
        self._steps.append((batch_idx, outputs["loss"], rows(batch)))
        if len(self._steps) >= _EVERY:
            self._look(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look before the network's outputs are judged."""
        self._look(trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Look before the weights are kept."""
        self._look(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Where validation found the network broken, the epoch's last step broke it."""
        if isinstance(exception, DivergedError) and self._before:
            self._write(trainer, self._before, None)

    def _look(self, trainer: pl.Trainer) -> None:
        """Read the losses that are waiting.

        Raises:
            DivergedError: One is NaN or infinite.
        """
        steps, self._steps = self._steps, []
        if not steps:
            return
        losses = torch.stack([loss for _, loss, _ in steps]).tolist()
        bad = next((at for at, loss in enumerate(losses) if not math.isfinite(loss)), None)
        if bad is None:
            self._before = steps[-1]
            if trainer.world_size > 1 and trainer.strategy.reduce_boolean_decision(False, all=False):
                self._before = None  # it is healthy here
                raise DivergedError(  # all stop together
                    f"training diverged on another process; the rows of its wafers are in <rank>_{FILE} in "
                    f"{self.folder}. Lower optimizer.lr, try trainer.precision=32-true, or look at those wafers"
                )
            return
        before = steps[bad - 1] if bad else self._before
        self._before = None
        if trainer.world_size > 1:
            trainer.strategy.reduce_boolean_decision(True, all=False)
        file = self._write(trainer, steps[bad], before)
        raise DivergedError(
            f"training diverged: the loss of batch {steps[bad][0] + 1} in epoch {trainer.current_epoch + 1} is "
            f"{losses[bad]}; the rows of its wafers are in {file}. Lower optimizer.lr, try trainer.precision=32-true, "
            "or look at those wafers"
        )

    def _write(
        self, trainer: pl.Trainer, step: tuple[int, Tensor, Tensor], before: tuple[int, Tensor, Tensor] | None
    ) -> Path:
        """Keep the step's rows, and those of the step before, whose update may have broken the weights."""
        facts = {
            "epoch": trainer.current_epoch + 1,
            "batch": step[0] + 1,
            "loss": str(float(step[1])),
            "rows": step[2].tolist(),
            "rows_of_the_batch_before": before[2].tolist() if before else [],
        }
        process = "" if trainer.world_size == 1 else f"{trainer.global_rank}_"
        return write_text(self.folder / f"{process}{FILE}", json.dumps(facts, indent=1))
