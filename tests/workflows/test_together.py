"""Several processes that train one model, for real: gloo on the CPU."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from wafer_lab.config.build import build
from wafer_lab.errors import UserError
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.metrics.collection import classification_metrics
from wafer_lab.workflows import together
from wafer_lab.workflows.fit import fit

REPOSITORY = Path(__file__).resolve().parents[2]
# In float32: not every machine has bfloat16, which would round the sums of two processes apart.
SMALL = (
    "debug=smoke", "data.source.num_wafers=400", "data.limit=249", "figures=false", "imbalance=balanced_sampler",
    "trainer.precision=32-true",
)  # fmt: skip


def launched(command, tmp_path, stores):
    """Run train.py in a folder and an environment of its own; what it leaves lies in tmp_path."""
    free = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "SLURM", "HYDRA"))}
    paths = os.pathsep.join([str(REPOSITORY), str(Path(__file__).parent)])
    tmp_path.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, *command, *SMALL, f"paths.cache={stores}"],
        env=free | {"WAFER_LAB_OUTPUTS": str(tmp_path), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )


def history(folder):
    with (folder / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_two_processes_train_as_one_does_on_the_same_batches(tiny, tmp_path, stores, monkeypatch):
    """Balanced sampler, die noise, averaged weights; val has an odd number of wafers."""
    options = (
        "model._target_=normless.Normless", "augment=strong", "callbacks=ema", "callbacks.ema.decay=0.5",
        "trainer.max_epochs=4", "optimizer.lr=0.02",
    )  # fmt: skip
    two = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "tracking=none", "name=two")
    done = launched([str(REPOSITORY / "train.py"), *two, *options], tmp_path / "outputs", stores)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("judging the best checkpoint") == done.stdout.count("run    two") == 1
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    monkeypatch.syspath_prepend(Path(__file__).parent)
    one = fit(tiny(*SMALL, *options))
    assert len(one.predictions.select("val", view=0)) % 2
    rows = history(folder)
    assert len(rows) == 4
    assert float(rows[-1]["val/f1_macro"]) > 0.1  # it has learnt something to disagree on
    for ours, theirs in zip(rows, history(one.run_dir), strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"seconds"}:
            assert float(ours[name] or 0) == pytest.approx(float(theirs[name] or 0), abs=1e-4), name
    table = Predictions.read(folder / "predictions.parquet")
    assert np.array_equal(table.index, one.predictions.index)
    assert np.array_equal(table.split, one.predictions.split)
    np.testing.assert_allclose(table.logits, one.predictions.logits, atol=1e-3)


def test_torchrun_leaves_one_run_of_which_the_table_has_each_wafer_once(tiny, tmp_path, stores):
    """With the default network, whose batch normalisation sees each process's own share on the CPU."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(REPOSITORY / "train.py")]
    nodes = ("trainer=ddp_nodes", "trainer.accelerator=cpu", "trainer.devices=2", "tracking=none", "name=two")
    done = launched([*command, *nodes], tmp_path, stores)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert len(history(folder)) == 1
    datamodule = build(tiny(*SMALL).data)
    datamodule.setup()
    table = Predictions.read(folder / "predictions.parquet").select(view=0)
    for part in ("val", "test"):
        assert np.array_equal(table.select(part).index, getattr(datamodule.split, part))


def test_the_loss_of_val_is_the_mean_over_wafers_whatever_the_batches(tiny):
    result = fit(tiny(*SMALL, "data.batch_size=4", "callbacks.early_stopping=null"))
    table = result.predictions.select("val", view=0)
    assert len(table) % 4
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(table.logits), torch.from_numpy(table.target))
    assert float(history(result.run_dir)[-1]["val/loss"]) == pytest.approx(float(loss), abs=1e-5)


def test_scores_of_shares_add_up_to_those_of_all():
    names = ("a", "b", "c")
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(25, 3, generator=generator).softmax(-1)
    target = torch.randint(0, 3, (25,), generator=generator)
    whole, *shares = (classification_metrics("multiclass", 3, names)["MulticlassScores"] for _ in range(4))
    whole.update(probabilities, target)
    for rank, metric in enumerate(shares):
        metric.update(probabilities[rank::3], target[rank::3])
    for metric in shares[1:]:
        shares[0].merge_state(metric)
    assert shares[0].compute() == whole.compute()


def test_a_fit_within_another_run_uses_one_device(tiny):
    with pytest.raises(UserError, match="uses one device"):
        fit(tiny("trainer=ddp", "trainer.devices=2"), nested=True)


def test_processes_that_do_not_know_of_each_other_are_refused(monkeypatch):
    import lightning.pytorch as pl

    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"2 processes were started.*use trainer=ddp_nodes"):
        together.is_first(pl.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False))
