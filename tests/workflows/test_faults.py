"""What can befall a run: it stops with one message, and what was good before stays."""

import contextlib
import importlib
import json
import os
import resource
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from wafer_lab.errors import DivergedError, OutOfMemoryError, Terminated, UserError
from wafer_lab.tasks.checkpointing import AtomicCheckpointIO
from wafer_lab.workflows.faults import explained, locked, terminable
from wafer_lab.workflows.fit import fit
from wafer_lab.workflows.run_files import claim

# 6 batches of 32 wafers in an epoch.
SMALL = ["trainer.max_epochs=2", "model.width=8", "data.canvas=16", "data.views=none", "evaluation.tta=none"]


@pytest.fixture(autouse=True)
def endings(monkeypatch):
    """The module of the callbacks that bring an end about."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("kill")


def ending(kind, **values):
    return [f"+callbacks.end._target_=kill.{kind}", *(f"+callbacks.end.{k}={v}" for k, v in values.items())]


@pytest.mark.parametrize(
    ("step", "after", "says", "batch"),
    [
        (9, False, r"the loss of batch 3 in epoch 2 is nan; the rows .*diverged\.json", 3),
        (12, True, "after epoch 2", 6),
    ],
)
def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_rows(tiny, endings, step, after, says, batch):
    cfg = tiny(*SMALL, *ending("BreakWeights", step=step, after=after))
    with pytest.raises(DivergedError, match=says):
        fit(cfg)
    folder = Path(cfg.paths.run)
    facts = json.loads((folder / "diverged.json").read_text())
    assert (facts["epoch"], facts["batch"], facts["loss"] == "nan") == (2, batch, not after)
    assert facts["rows"] == endings.BreakWeights.seen[step - 1]
    assert facts["rows_of_the_batch_before"] == ([] if after else endings.BreakWeights.seen[step - 2])
    kept = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert kept["epoch"] == 0
    assert all(value.isfinite().all() for value in kept["state_dict"].values())


def test_too_little_memory_is_said_with_what_to_lower(tiny):
    with pytest.raises(OutOfMemoryError, match=r"(?s)out of memory.*data\.batch_size.*canvas.*precision"):
        fit(tiny(*SMALL, *ending("RunOutOfMemory")))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED."),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_memory_of_every_kind_can_run_out(tmp_path, error):
    with pytest.raises(OutOfMemoryError, match="lower") as caught, explained(tmp_path):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), FileNotFoundError(2, "no such file")])
def test_other_errors_stay_what_they_are(tmp_path, error):
    with pytest.raises(type(error)) as caught, explained(tmp_path):
        raise error
    assert caught.value is error


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_stops_the_run_and_it_goes_on_once_there_is_room(tiny, small_disk):
    run_dir = f"paths.run={small_disk}/run"
    with pytest.raises(UserError, match=r"no space left .*make room, then go on: .*ckpt_path=\S+/last\.ckpt"):
        fit(tiny(*SMALL, run_dir, *ending("FillDisk", step=8, folder=small_disk)))
    last = small_disk / "run/checkpoints/last.ckpt"
    assert torch.load(last, weights_only=True)["epoch"] == 0
    assert len((small_disk / "run/history.csv").read_text().splitlines()) == 2
    assert not list(small_disk.rglob("*.tmp"))
    (small_disk / "filler").unlink()
    assert (fit(tiny(*SMALL, run_dir, f"ckpt_path={last}")).run_dir / "report.md").is_file()


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path):
    """The system refuses the second file in the middle."""
    path, usual = tmp_path / "checkpoints/last.ckpt", resource.getrlimit(resource.RLIMIT_FSIZE)
    AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(1000)}, path)
    before = path.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, usual[1]))
    try:
        with pytest.raises(UserError, match="no space left"), explained(tmp_path):
            AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(1_000_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("resumes", [False, True])
def test_two_runs_at_once_in_one_folder_are_refused(tmp_path, resumes):
    with claim(tmp_path, {"seed": 0}, resumes), pytest.raises(UserError, match="another process is running in"):
        claim(tmp_path, {"seed": 1}, resumes).__enter__()
    with claim(tmp_path, {"seed": 0}, resumes=True):
        assert (tmp_path / "config.yaml").read_text() == "seed: 0\n"


def test_a_process_that_dies_lets_go_of_its_folder(tmp_path):
    holds, told = os.pipe()
    child = os.fork()
    if child == 0:
        with locked(tmp_path):
            os.write(told, b"x")
            signal.pause()
    os.read(holds, 1)
    with pytest.raises(UserError, match="another process"):
        locked(tmp_path).__enter__()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with locked(tmp_path):
        pass


class Resource:
    closed = False

    def close(self):
        self.closed = True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_outside_of_training_ends_at_once_and_closes_what_is_open(number):
    before = signal.getsignal(number)
    with pytest.raises(Terminated) as caught, terminable(), contextlib.closing(Resource()) as held:
        os.kill(os.getpid(), number)
    assert caught.value.code == 128 + number
    assert held.closed
    assert signal.getsignal(number) is before


def test_a_folder_whose_run_died_before_its_first_checkpoint_is_free_again(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 9\n")
    with claim(tmp_path, {"seed": 0}, resumes=False):
        assert (tmp_path / "config.yaml").read_text() == "seed: 0\n"
        (tmp_path / "fold_0").mkdir()
        (tmp_path / "fold_0" / "config.yaml").touch()
    with pytest.raises(UserError, match="already holds a run"):
        claim(tmp_path, {"seed": 0}, resumes=False).__enter__()


def test_numpy_runs_out_of_memory_too(tmp_path):
    with pytest.raises(OutOfMemoryError), explained(tmp_path):
        np.empty(10**15)
