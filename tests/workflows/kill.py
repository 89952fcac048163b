"""Ends runs at chosen points as kill -9 does, or as a signal asks; `python kill.py FOLDER` does so for all of them.

The script imports the framework once and forks a child for each `<point>.yaml` in FOLDER, which runs that config and
meets its end at that point. It prints one line per point: its name and how the child ended.
"""

import contextlib
import os
import signal
import sys
import traceback
from pathlib import Path

from lightning.pytorch.callbacks import Callback


class KillAtStep(Callback):
    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            die()


class CrashAtStep(KillAtStep):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            raise RuntimeError("the power went out")


class SignalAtStep(Callback):
    """Send this process a signal after a step; the run then stops by itself."""

    def __init__(self, step: int, signum: int, validating: bool = False):
        self.step, self.signum, self.validating = step, signum, validating

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step and not self.validating:
            os.kill(os.getpid(), self.signum)

    def on_validation_batch_end(self, trainer, *_):
        if trainer.global_step == self.step and self.validating:
            os.kill(os.getpid(), self.signum)


class BreakWeights(Callback):
    """Make a weight NaN before a step, or after it; `rows` are those of every step so far."""

    def __init__(self, step: int, after: bool = False):
        self.step, self.after = step, after

    def on_train_start(self, trainer, pl_module):
        pl_module.rows = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        pl_module.rows.append(batch.row.tolist())
        self._break(pl_module, not self.after)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self._break(pl_module, self.after)

    def _break(self, task, now):
        if now and len(task.rows) == self.step:
            next(task.network.parameters()).data.fill_(float("nan"))
            type(self).seen = task.rows


class FillDisk(Callback):
    """Leave no byte on the file system of a folder after a step."""

    def __init__(self, step: int, folder: str):
        self.step, self.folder = step, Path(folder)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            with contextlib.suppress(OSError), (self.folder / "filler").open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass


class RunOutOfMemory(Callback):
    """Ask the machine for more memory than any has."""

    def on_train_batch_end(self, *_):
        import torch

        torch.empty(10**15)


class SpoilLastEpoch(Callback):
    """Make the last epoch's weights worthless before they are validated."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == trainer.max_epochs - 1:
            for parameter in pl_module.network.head.parameters():
                parameter.data.zero_()


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def counted(call, number, before=None, after=None):
    """The call, with `before` or `after` done round its `number`-th use."""
    uses = iter(range(1, 1000))

    def wrapped(*args, **kwargs):
        hit = next(uses) == number
        if hit and before:
            before(*args, **kwargs)
        result = call(*args, **kwargs)
        if hit and after:
            after(*args, **kwargs)
        return result

    return wrapped


def half_written(checkpoint, file):
    file.write(b"PK\x03\x04 the first half")
    file.flush()
    die()


def arm(point: str) -> None:
    """Arrange for the end; steps are arranged by callbacks in the config."""
    import torch

    from wafer_lab.tasks import checkpointing
    from wafer_lab.workflows import fit

    # Each epoch saves best.ckpt, if it is one, then last.ckpt. In the first epoch both are.
    saves = checkpointing.AtomicCheckpointIO.save_checkpoint
    if point == "while_writing":
        torch.save = counted(torch.save, 3, before=half_written)
    if point == "between_best_and_last":
        checkpointing.AtomicCheckpointIO.save_checkpoint = counted(saves, 1, after=die)
    if point == "between_previous_and_last":
        checkpointing._keep = counted(checkpointing._keep, 1, after=die)
    if point == "while_judging":
        fit.predict_split = die


def main(folder: Path) -> None:
    """Run every config in a child of its own."""
    from omegaconf import OmegaConf

    from wafer_lab.config.resolvers import register
    from wafer_lab.workflows import fit, run  # noqa: F401

    register()
    for config in sorted(folder.glob("*.yaml")):
        child = os.fork()
        if child == 0:
            arm(config.stem)
            try:
                run(OmegaConf.load(config))
                os._exit(0)
            except SystemExit as stop:
                os._exit(stop.code)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(f"ended {config.stem} {status}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
