"""Runs that are stopped at any point go on as if they never had been."""

import csv
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from wafer_lab.errors import UserError
from wafer_lab.workflows.checkpoint import check_resumable
from wafer_lab.workflows.faults import last_checkpoint
from wafer_lab.workflows.fit import fit

HERE = Path(__file__).parent
# 6 batches of 32 wafers in an epoch; dropout, augmentation and averaged weights are what resuming could get wrong.
OPTIONS = [
    "trainer.max_epochs=2", "callbacks=ema", "callbacks.ema.decay=0.8", "model.width=8", "head.dropout=0.2",
    "augment=strong", "optimizer.lr=0.01", "data.canvas=16", "data.views=none", "evaluation.tta=none",
    "evaluation.resamples=100",
]  # fmt: skip
KILLED, TERM, USR1 = -signal.SIGKILL, 128 + signal.SIGTERM, 128 + signal.SIGUSR1


def callback(kind, **values):
    return [f"+callbacks.end._target_=kill.{kind}", *(f"+callbacks.end.{k}={v}" for k, v in values.items())]


# point: options of the run, how it ends, epoch and batches of it that its last checkpoint holds (None: there is none)
POINTS = {
    "in_the_first_epoch": (callback("KillAtStep", step=3), KILLED, None),
    "in_the_second_epoch": (callback("KillAtStep", step=8), KILLED, (0, 6)),
    "while_writing": ([], KILLED, (0, 6)),
    "between_best_and_last": ([], KILLED, (0, 6)),
    "between_previous_and_last": ([], KILLED, (0, 6)),
    "while_judging": ([], KILLED, (1, 12)),
    "sigterm": (callback("SignalAtStep", step=3, signum=int(signal.SIGTERM)), TERM, (0, 3)),
    "sigusr1": (callback("SignalAtStep", step=8, signum=int(signal.SIGUSR1)), USR1, (1, 8)),
    "sigterm_at_the_last_step_of_an_epoch": (
        callback("SignalAtStep", step=6, signum=int(signal.SIGTERM)), TERM, (0, 6)
    ),
    "sigterm_in_the_last_validation": (
        callback("SignalAtStep", step=12, signum=int(signal.SIGTERM), validating=True), TERM, (1, 12)
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def compose(tmp_path_factory, stores):
    """As the fixture `tiny`, with one folder for the whole module."""
    from hydra import compose, initialize_config_dir

    from wafer_lab.config.resolvers import register

    register()
    outputs = tmp_path_factory.mktemp("resume")
    small = ["debug=smoke", "data.source.num_wafers=400", "model=wafer_cnn", "figures=false", "tracking=none"]

    def composed(*overrides, name):
        places = [
            f"paths.outputs={outputs}",
            f"paths.run={outputs}/runs/{name}",
            f"name={name}",
            f"paths.cache={stores}",
        ]
        with initialize_config_dir(str(HERE.parents[1] / "conf"), version_base="1.3"):
            return compose("train", overrides=[*small, *places, *OPTIONS, *overrides])

    return composed


@pytest.fixture(scope="module")
def whole(compose):
    """The run that nothing stops."""
    return fit(compose(name="whole"))


@pytest.fixture(scope="module")
def ends(compose, whole, tmp_path_factory):
    """How each of the other runs ended, and what it had printed."""
    folder = tmp_path_factory.mktemp("points")
    for point, (options, _, _) in POINTS.items():
        OmegaConf.save(compose(*options, name=point), folder / f"{point}.yaml")
    done = subprocess.run([sys.executable, HERE / "kill.py", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said, found = [], {}
    for line in done.stdout.splitlines():
        said.append(line)
        if line.startswith("ended "):
            found[line.split()[1]] = (int(line.split()[2]), "\n".join(said), done.stderr)
            said = []
    return found


def state(path):
    """All that a checkpoint holds of the training: not where its run lies, how long epochs took, or its config."""
    kept = torch.load(path, weights_only=True)
    del kept["wafer_lab"]
    for name, values in kept["callbacks"].items():
        if "RunCheckpoint" in name:
            values = {k: Path(v).name if k.endswith("_path") else v for k, v in values.items() if k != "dirpath"}
            values["best_k_models"] = list(values["best_k_models"].values())
            if values["monitor"] is None:
                del values["best_model_path"]  # of last.ckpt, which a run that died before the first of it never had
        if "History" in name:
            values = [{k: v for k, v in row.items() if k != "seconds"} for row in values["epochs"]]
        kept["callbacks"][name] = values
    return kept


def differences(first, second, path=""):
    """Where two nested values are not equal to the bit."""
    if isinstance(first, torch.Tensor):
        return [] if torch.equal(first, second) else [path]
    if isinstance(first, dict):
        if first.keys() != second.keys():
            return [f"{path}: {first.keys() ^ second.keys()}"]
        return [found for key in first for found in differences(first[key], second[key], f"{path}/{key}")]
    if isinstance(first, list | tuple):
        if len(first) != len(second):
            return [f"{path}: {len(first)} and {len(second)}"]
        pairs = enumerate(zip(first, second, strict=True))
        return [found for at, (a, b) in pairs for found in differences(a, b, f"{path}/{at}")]
    return [] if first == second or first != first else [f"{path}: {first} and {second}"]


def curves(folder):
    with (folder / "history.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


# Their last checkpoint is that of the first epoch's end, which in_the_second_epoch goes on from already.
NOT_AGAIN = ("while_writing", "between_previous_and_last", "sigterm_at_the_last_step_of_an_epoch")


@pytest.mark.parametrize("point", POINTS)
def test_a_run_that_was_stopped_goes_on_bit_for_bit(compose, whole, ends, point):
    _, expected, where = POINTS[point]
    status, said, errors = ends[point]
    assert status == expected, errors
    folder = whole.run_dir.parent / point
    if not where:
        assert not list(folder.rglob("*.ckpt"))
        return
    last, start = folder / "checkpoints/last.ckpt", last_checkpoint(folder)
    assert (start == last) == (point != "between_best_and_last")
    stopped = torch.load(start, weights_only=True)
    assert (stopped["epoch"], stopped["global_step"]) == where
    assert (f"to go on: the same command with ckpt_path={last}" in said) == (expected != KILLED)
    if point not in NOT_AGAIN:
        check_equal(fit(compose(f"ckpt_path={start}", name=point)), whole)


def check_equal(resumed, whole):
    """Weights, averaged weights, optimizer, schedule, callbacks, progress; logits; history."""
    folder = resumed.run_dir
    for name in ("last.ckpt", "best.ckpt"):
        files = [result.run_dir / "checkpoints" / name for result in (resumed, whole)]
        assert differences(*map(state, files)) == []
    assert np.array_equal(resumed.predictions.logits, whole.predictions.logits)
    assert curves(folder) == curves(whole.run_dir)
    assert not list(folder.rglob("*.tmp"))


def truncated(data):
    return data[: len(data) // 2]


def flipped(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def test_a_damaged_last_checkpoint_gives_way_to_the_one_before(compose, whole, capsys):
    folder = whole.run_dir.parent / "damaged"
    shutil.copytree(whole.run_dir, folder)
    last, previous = (folder / "checkpoints" / name for name in ("last.ckpt", "previous.ckpt"))
    ours = torch.load(last, weights_only=True)["wafer_lab"]
    whole_file = last.read_bytes()
    for damaged in (b"", b"garbage", truncated(whole_file), flipped(whole_file)):
        last.write_bytes(damaged)
        assert check_resumable(last, ours)[0] == previous
        assert "warning: " in (said := capsys.readouterr().out)
        assert f"going on from the checkpoint before it, {previous}" in said
    assert torch.load(previous, weights_only=True)["epoch"] == 0
    check_equal(fit(compose(f"ckpt_path={last}", name="damaged")), whole)
    for file in (last, previous):
        file.write_bytes(truncated(whole_file))
    with pytest.raises(UserError, match=r"last\.ckpt is damaged.*and so is .*previous\.ckpt; go on from .*best\.ckpt"):
        check_resumable(last, ours)
