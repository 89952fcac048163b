"""Checkpoints that survive a stop at any moment and a move of the run's folder."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from wafer_lab.files import replacing

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint for a run's folder that may have been moved or mounted elsewhere.

    Lightning forgets the best score when the folder's path has changed, and would then overwrite the best checkpoint
    with the next epoch's. The files lie beside the checkpoint that is resumed from, whatever the path.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state, its paths put into today's folder."""
        here = Path(str(self.dirpath))
        moved = {
            name: str(here / Path(state_dict[name]).name) if state_dict[name] else ""
            for name in ("best_model_path", "kth_best_model_path", "last_model_path")
        }
        kept = {str(here / Path(path).name): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **moved, "best_k_models": kept, "dirpath": self.dirpath})
        self.current_score = state_dict["current_score"]  # Lightning forgets it


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its place, then rename; keep the `last.ckpt` before this one as `previous.ckpt`.

    Lightning writes to the system's temporary folder and moves; from another file system that is a copy over the only
    checkpoint there is.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save; a stop at any moment leaves the old file or the new one.

        Raises:
            OSError: The disk is full, or the file cannot be written.
        """
        with replacing(path) as beside:
            with beside.open("wb") as file:
                try:
                    torch.save(checkpoint, file)
                except RuntimeError as error:  # torch's own, of a file that it could not finish
                    if isinstance(error.__context__, OSError):
                        raise error.__context__ from None
                    raise
                os.fsync(file.fileno())  # else a power cut could leave the name without the content
            if Path(path).name == LAST and Path(path).exists():
                _keep(Path(path))


def _keep(last: Path) -> None:
    """Give the file a second name; it stays in its place until the new one takes it."""
    with replacing(last.with_name(PREVIOUS)) as beside:
        beside.unlink(missing_ok=True)
        try:
            os.link(last, beside)
        except OSError:  # a file system without links
            shutil.copyfile(last, beside)
