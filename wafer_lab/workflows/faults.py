"""What can befall a run from outside: signals, a full disk, too little memory, a second run in its folder."""

import errno
import fcntl
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import torch
from lightning.pytorch.utilities.memory import is_oom_error

from wafer_lab.errors import OutOfMemoryError, Terminated, UserError
from wafer_lab.tasks.checkpointing import LAST
from wafer_lab.tasks.stopping import SIGNALS

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LOCK = ".lock"


def last_checkpoint(run_dir: Path) -> Path:
    """The checkpoint to go on from; a run that was stopped between its first two has only the best."""
    last, best = (run_dir / "checkpoints" / name for name in (LAST, "best.ckpt"))
    return best if best.exists() and not last.exists() else last


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGUSR1 end the block as Ctrl-C does, so that what is open is closed; training saves first.

    Raises:
        Terminated: A signal came.
    """

    def end(signum: int, frame: FrameType | None) -> NoReturn:
        raise Terminated(signum)

    if threading.current_thread() is not threading.main_thread():  # it gets no signals
        yield
        return
    before = {number: signal.signal(number, end) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def explained(run_dir: Path) -> Iterator[None]:
    """Turn what the machine lacks into one message.

    Args:
        run_dir: The run's folder, whose last checkpoint the message names.

    Raises:
        UserError: The disk is full.
        OutOfMemoryError: The memory of the device or of the machine is.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        last = last_checkpoint(run_dir)
        then = f", then go on: the same command with ckpt_path={last}" if last.exists() else " and start again"
        raise UserError(f"no space left to write {error.filename or 'in ' + str(run_dir)}; make room{then}") from error
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, MemoryError | torch.OutOfMemoryError) or is_oom_error(error)):
            raise
        raise OutOfMemoryError(
            f"out of memory ({str(error).strip().splitlines()[0][:200] if str(error).strip() else 'no details'}); "
            "lower data.batch_size (trainer.accumulate_grad_batches makes up for it) or data.canvas, or set "
            "trainer.precision=bf16-mixed"
        ) from error


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold a folder for one process; the system lets go of it when the process ends, however it ends.

    Raises:
        UserError: Another process has it.
    """
    with (run_dir / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is running in {run_dir}; wait until it ends, or stop it") from None
        except OSError:  # a file system without locks
            pass
        yield
