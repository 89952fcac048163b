"""Runs that learn from wafers without labels: what they train on, leave behind and refuse; that they resume."""

import csv
import os
import signal

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from wafer_lab.data.batches import rows
from wafer_lab.errors import Terminated, UserError
from wafer_lab.evaluation.predictions import Predictions
from wafer_lab.workflows.checkpoint import load_task
from wafer_lab.workflows.export import _data
from wafer_lab.workflows.fit import fit
from wafer_lab.workflows.prune import prune_network
from wafer_lab.workflows.pseudo_labels import choose

FEW = ("data.label_fraction=0.3", "tracking=none", "data.canvas=16", "evaluation.tta=none", "data.views=none")


class Watch(Callback):
    """Keep the rows that were trained on; ask the run to stop after a step."""

    seen: set
    stop_after = None

    def on_train_start(self, trainer, task):
        type(self).seen, type(self).split = set(), trainer.datamodule.split

    def on_train_batch_start(self, trainer, task, batch, batch_idx):
        self.seen.update(rows(batch).tolist())

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        if trainer.global_step == self.stop_after:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def watched(monkeypatch):
    """Let every run be watched."""
    from wafer_lab.workflows import assemble

    made = assemble.build_trainer

    def build_trainer(*arguments, **options):
        trainer, callbacks = made(*arguments, **options)
        trainer.callbacks.append(Watch())
        return trainer, callbacks

    monkeypatch.setattr("wafer_lab.workflows.fit.build_trainer", build_trainer)
    monkeypatch.setattr(Watch, "stop_after", None)
    return Watch


def history(folder):
    with (folder / "history.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("task", [("simclr",), ("fixmatch", "task.mu=2", "data.batch_size=16")])
def test_a_run_learns_from_the_training_side_alone_and_resumes(tiny, watched, task):
    options = (*FEW, f"task={task[0]}", *task[1:], "trainer.max_epochs=2", "callbacks=ema")
    whole = fit(tiny(*options, run="whole"))
    split = watched.split
    assert watched.seen <= set(split.train) | set(split.unlabelled)
    assert len(watched.seen & set(split.unlabelled)) > len(split.unlabelled) / 2
    steps = torch.load(whole.run_dir / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    watched.stop_after = steps // 2 + 1
    with pytest.raises(Terminated):
        fit(tiny(*options, run="cut"))
    watched.stop_after = None
    last = whole.run_dir.parent / "cut/checkpoints/last.ckpt"
    assert steps / 2 < torch.load(last, weights_only=True)["global_step"] < steps
    resumed = fit(tiny(*options, f"ckpt_path={last}", run="cut"))
    assert np.array_equal(resumed.predictions.logits, whole.predictions.logits)
    assert history(resumed.run_dir) == history(whole.run_dir)
    with pytest.raises(UserError, match=r"callbacks\.ema"):  # whose averages are the weights of the checkpoint
        fit(tiny(*options, "callbacks=default", f"ckpt_path={last}", run="cut"))
    with pytest.raises(UserError, match="--prune trains on labelled wafers"):
        prune_network(whole.run_dir, load_task(whole.run_dir), _data(whole.run_dir, "none"), 0.5, 1)
    with pytest.raises(UserError, match=r"task\.mixup is for task=classification"):
        fit(tiny(*options, "+task.mixup=0.2", run="mixed"))


@pytest.mark.parametrize(("threshold", "used"), [(1.0, False), (0.51, True)])
def test_fixmatch_says_when_it_used_no_unlabelled_wafer(tiny, capsys, threshold, used):
    result = fit(tiny(*FEW, "task=fixmatch", "task.mu=2", "data.batch_size=16", f"task.threshold={threshold}"))
    assert (float(history(result.run_dir)[-1]["train/mask_rate"]) > 0) == used
    assert ("sure of no unlabelled wafer" not in capsys.readouterr().out) == used


def test_pretraining_leaves_an_encoder_that_a_run_begins_with(tiny, watched):
    from safetensors.torch import load_file

    result = fit(tiny(*FEW, "task=simclr"))
    (epoch,) = history(result.run_dir)
    assert 0 < float(epoch["train/feature_spread"]) <= 1
    assert 0 <= float(epoch["val/knn_f1_macro"]) <= 1
    assert 0 <= float(epoch["val/f1_macro"]) <= 1  # of the linear probe
    votes = Predictions.read(result.run_dir / "neighbours.parquet")
    assert np.array_equal(votes.index, result.predictions.index)
    np.testing.assert_allclose(np.exp(votes.logits).sum(-1), 1, atol=1e-4)
    assert {"test/knn/f1_macro", "test/f1_macro"} <= result.scores.keys()
    encoder = load_file(result.run_dir / "encoder.safetensors")
    trained = load_task(result.run_dir).network.encoder.state_dict()
    assert all(torch.equal(encoder[name], trained[name]) for name in trained)
    began = {}

    def remember(self, trainer, task):
        began.update({name: value.clone() for name, value in task.network.encoder.state_dict().items()})

    watched.on_train_start, kept = remember, watched.on_train_start
    try:
        watched.seen = set()
        fit(tiny(*FEW, f"weights={result.run_dir}", run="tuned"))
    finally:
        watched.on_train_start = kept
    assert all(torch.equal(encoder[name], began[name]) for name in encoder)
    with pytest.raises(UserError, match="weights"):
        fit(tiny(*FEW, "model=resnet18", "model.width=8", f"weights={result.run_dir / 'encoder.safetensors'}", run="x"))


def test_pretraining_needs_no_unlabelled_wafer(tiny, watched):
    result = fit(tiny("task=simclr", "tracking=none", "data.canvas=16", "data.views=none"))
    assert len(watched.split.unlabelled) == 0
    assert "test/knn/f1_macro" in result.scores


def test_a_student_learns_what_its_teacher_is_sure_of(tiny, watched):
    teacher = fit(tiny(*FEW, "trainer.max_epochs=15", "optimizer.lr=0.01", run="teacher"))
    student = fit(tiny(*FEW, "task=pseudo_label", f"task.teacher={teacher.run_dir}", "task.threshold=0.6", run="s"))
    with (student.run_dir / "pseudo_labels.csv").open() as file:
        given = {int(row["index"]) for row in csv.DictReader(file)}
    judged = set(student.predictions.index)
    assert given
    assert not given & judged
    teacher_split = load_task(teacher.run_dir).record["split_digest"]
    assert load_task(student.run_dir).record["split_digest"] == teacher_split
    assert len(given & watched.seen) > len(given) / 2  # an epoch leaves a last, smaller batch out
    for change, what in (("data.test=0.4", "other parts of the data"), ("data.source.num_wafers=380", "other data")):
        with pytest.raises(UserError, match=f"was trained on {what}"):
            fit(tiny(*FEW, "task=pseudo_label", f"task.teacher={teacher.run_dir}", change, run="refused"))
    with pytest.raises(UserError, match=r"lower task\.threshold=1"):
        fit(tiny(*FEW, "task=pseudo_label", f"task.teacher={teacher.run_dir}", "task.threshold=1.0", run="refused"))


@pytest.mark.parametrize("options", [("task=fixmatch",), ("task=pseudo_label", "task.teacher=nowhere")])
def test_without_unlabelled_wafers_there_is_nothing_to_learn_from(tiny, options):
    with pytest.raises(UserError, match=r"have none on the training side; .*data\.label_fraction=0\.1"):
        fit(tiny("data.label_fraction=1.0", "data.limit=null", "tracking=none", *options))


def test_of_each_class_the_surest_are_taken_up_to_its_cap():
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    probabilities = np.array([
        [0.98, 0.01, 0.01], [0.96, 0.02, 0.02], [0.99, 0.01, 0.0], [0.94, 0.03, 0.03],  # three sure of class 0
        [0.01, 0.97, 0.02], [0.01, 0.97, 0.02], [0.0, 0.96, 0.04],  # three of class 1, two of them alike
        [0.01, 0.01, 0.98], [0.02, 0.02, 0.96],  # two of class 2
    ])  # fmt: skip
    guess, chosen = choose(probabilities, labels, 0.95, 0.5)
    assert guess.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2]
    # caps: two of class 0; one of class 1, the first of those alike; at least one of class 2
    assert np.flatnonzero(chosen).tolist() == [0, 2, 4, 7]
    assert np.flatnonzero(choose(probabilities, labels, 0.95, 9)[1]).tolist() == [0, 1, 2, 4, 5, 6, 7, 8]
    assert not choose(probabilities, labels, 0.995, 9)[1].any()


def test_of_several_labels_all_must_be_sure():
    labels = np.array([[1, 0], [1, 1]])
    probabilities = np.array([[0.99, 0.02], [0.99, 0.4], [0.97, 0.96]])
    guess, chosen = choose(probabilities, labels, 0.95, 5)
    assert guess.tolist() == [[1, 0], [1, 0], [1, 1]]
    assert chosen.tolist() == [True, False, True]
