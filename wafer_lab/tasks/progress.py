"""The progress bar of a terminal: one line while an epoch runs, gone when its own line is printed."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm


class Progress(TQDMProgressBar):
    """Lightning's bar, counting epochs from 1 and leaving nothing behind."""

    def init_train_tqdm(self) -> Tqdm:
        """A bar that clears itself."""
        bar = super().init_train_tqdm()
        bar.leave = False
        return bar

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Name the epoch as its result line will."""
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description(f"epoch {trainer.current_epoch + 1:>3}/{trainer.max_epochs}")

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Metrics beside the bar, without the logger's version."""
        return {k: v for k, v in super().get_metrics(trainer, pl_module).items() if k != "v_num"}
