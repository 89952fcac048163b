"""The course of a run: one line per epoch on the console and one row per epoch in history.csv."""

import csv
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from wafer_lab.files import replacing


class History(Callback):
    """Keep every epoch's metrics; they travel in the checkpoint, so a resumed run has the whole course.

    Args:
        path: CSV file to write after every epoch.
        monitor: Metric to show beside the losses.
    """

    def __init__(self, path: str, monitor: str):
        self.path, self.monitor = Path(path), monitor
        self.epochs: list[dict[str, float]] = []
        self._started = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the time, also where a run goes on within an epoch."""
        self._started = time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the time."""
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch, rewrite the CSV, print the line."""
        row = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row |= {"epoch": trainer.current_epoch + 1, "seconds": time.monotonic() - self._started}
        self.epochs.append(row)
        if not trainer.is_global_zero:
            return
        self._write()
        shown = [name for name in ("train/loss", "val/loss", self.monitor) if name in row]
        figures = "  ".join(f"{name} {row[name]:.4f}" for name in dict.fromkeys(shown))
        line = f"epoch {trainer.current_epoch + 1:>3}/{trainer.max_epochs}  {figures}  {row['seconds']:.1f} s"
        pl_module.print(line)  # above a progress bar, where there is one
        sys.stdout.flush()

    def best(self, mode: str) -> dict[str, float]:
        """`best_epoch` (counted from 1) and `best_score`, by the monitored metric; empty where it never came."""
        scored = [row for row in self.epochs if self.monitor in row]
        if not scored:
            return {}
        row = (max if mode == "max" else min)(scored, key=lambda row: row[self.monitor])
        return {"best_epoch": int(row["epoch"]), "best_score": row[self.monitor]}

    def best_epoch(self, mode: str) -> dict[str, float]:
        """Every val metric of the epoch that is best by the monitored one; empty where that never came."""
        number = self.best(mode).get("best_epoch")
        rows = [row for row in self.epochs if row["epoch"] == number]
        return {name: value for name, value in rows[0].items() if name.startswith("val/")} if rows else {}

    def _write(self) -> None:
        names = sorted({name for row in self.epochs for name in row} - {"epoch"})
        with replacing(self.path) as beside, beside.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["epoch", *names])
            writer.writeheader()
            writer.writerows(self.epochs)

    def state_dict(self) -> dict[str, Any]:
        """The epochs so far."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the epochs of the checkpoint."""
        self.epochs = list(state_dict["epochs"])
