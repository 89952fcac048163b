import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf

from wafer_lab.errors import UserError
from wafer_lab.workflows import run
from wafer_lab.workflows.checkpoint import load_task
from wafer_lab.workflows.fit import fit

CONTRACT = (
    "config.yaml",
    "metrics.json",
    "predictions.parquet",
    "report.md",
    "checkpoints/best.ckpt",
    "checkpoints/last.ckpt",
)
HERE = Path(__file__).parent


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_run_leaves_what_the_contract_says(tiny, capsys):
    cfg = tiny("figures=true")
    monitored = run(cfg)
    folder = Path(cfg.paths.run)
    for name in CONTRACT:
        assert (folder / name).is_file(), name
    metrics = json.loads((folder / "metrics.json").read_text())
    assert 0 <= metrics["test/f1_macro/low"] <= metrics["test/f1_macro"] <= metrics["test/f1_macro/high"] <= 1
    assert monitored == pytest.approx(metrics["val/f1_macro"], abs=0.1)
    assert sorted(p.name for p in (folder / "figures").iterdir())
    assert OmegaConf.load(folder / "config.yaml").data.num_classes == 9
    table = pq.read_table(folder / "predictions.parquet")
    assert set(table["split"].to_pylist()) == {"val", "test"}
    said = capsys.readouterr().out
    assert "macro F1" in said
    assert str(folder) in said


def test_the_table_holds_each_wafer_once_a_view_and_never_a_training_wafer(tiny):
    result = fit(tiny())
    config = load_task(result.run_dir).config
    assert (config.data.limit, config.data.views) == (256, "d4")
    views = [result.predictions.select(view=view) for view in range(8)]
    assert sum(map(len, views)) == len(result.predictions)
    for table in views:
        assert np.array_equal(np.sort(table.index), np.unique(views[0].index))
        assert len(table) < 128


def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not(tiny):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        fit(tiny(f"seed={seed}", run=name))
    root = Path(tiny().paths.outputs) / "runs"
    first, again, other = (weights(root / name / "checkpoints/last.ckpt") for name in "abc")
    assert equal(first, again)
    assert not equal(first, other)


def test_overfits_eight_wafers(tiny):
    """Eight wafers are learnt by heart: the loss on them goes to nothing."""
    cfg = tiny(
        "data.limit=null", "augment=none", "data.label_fraction=0.001", "data.batch_size=8", "trainer.max_epochs=60",
        "callbacks.early_stopping=null", "optimizer.lr=0.003", "trainer.precision=32-true",
    )  # fmt: skip
    result = fit(cfg)
    lines = (result.run_dir / "history.csv").read_text().splitlines()
    column = lines[0].split(",").index("train/loss")
    assert float(lines[-1].split(",")[column]) < 0.05


def test_shuffled_labels_stay_at_chance(tiny, monkeypatch):
    """With labels that say nothing about the wafers no score can be earned; a leak would earn one."""
    from wafer_lab.data.store import Store

    opened = Store.open.__func__

    def shuffled(cls, path):
        store = opened(cls, path)
        store.label = np.random.default_rng(0).permutation(store.label)
        return store

    monkeypatch.setattr(Store, "open", classmethod(shuffled))
    result = fit(tiny("data.limit=null", "trainer.max_epochs=4", "imbalance=balanced_sampler"))
    assert result.scores["test/auroc_macro"] == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    "overrides",
    [
        ["data=simulated_mixed", "loss=bce"],
        ["data=simulated_mixed", "loss=asymmetric", "imbalance=class_weights", "data.encoding=masks"],
        ["loss=ldam", "imbalance=effective_number", "data.encoding=grey"],
        ["loss=focal", "imbalance=sqrt_sampler", "optimizer=sgd", "scheduler=one_cycle"],
        ["imbalance=logit_adjustment", "scheduler=none", "augment=none"],
        ["data.split=kfold", "data.fold=2"],
        ["data.split=lot", "data.limit=null"],
    ],
    ids=" ".join,
)
def test_compositions_run(tiny, overrides):
    result = fit(tiny(*overrides))
    assert np.isfinite(result.predictions.logits).all()


def test_a_checkpoint_of_other_classes_is_refused(tiny):
    first = fit(tiny(run="nine"))
    cfg = tiny("data=simulated_mixed", "loss=bce", f"ckpt_path={first.run_dir}/checkpoints/last.ckpt", run="eight")
    with pytest.raises(UserError, match=r"trained on 9 classes .*this run has 8"):
        fit(cfg)


def test_a_checkpoint_of_another_split_or_network_is_refused(tiny):
    first = fit(tiny(run="first"))
    resume = f"ckpt_path={first.run_dir}/checkpoints/last.ckpt"
    with pytest.raises(UserError, match="another split"):
        fit(tiny(resume, "data.split=kfold", run="second"))
    with pytest.raises(UserError, match=r"model\.width was 24, is 8"):
        fit(tiny(resume, "model.width=8", run="second"))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
def test_a_damaged_checkpoint_is_said(tmp_path, content):
    file = tmp_path / "last.ckpt"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged or not|not loaded|not a wafer_lab"):
        load_task(file)


def test_a_checkpoint_that_would_run_code_does_not(tmp_path):
    class Payload:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"state_dict": {}, "wafer_lab": Payload()}, tmp_path / "bad.ckpt")  # not plain data
    with pytest.raises(UserError, match="could run code"):
        load_task(tmp_path / "bad.ckpt")
    assert not (tmp_path / "ran").exists()


def test_a_missing_checkpoint_is_said(tmp_path):
    with pytest.raises(UserError, match="no checkpoint at"):
        load_task(tmp_path / "nothing.ckpt")


def test_a_crash_is_failed_in_mlflow_and_its_run_goes_on_when_resumed(tiny, tracked_runs, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    options = ["tracking=mlflow", "trainer.max_epochs=2"]
    cfg = tiny(*options, "+callbacks.crash._target_=kill.CrashAtStep", "+callbacks.crash.step=8")
    with pytest.raises(RuntimeError, match="power went out"):
        fit(cfg)
    database = Path(cfg.paths.outputs) / "mlflow.db"
    (crashed,) = tracked_runs(database)
    assert crashed.info.status == "FAILED"
    fit(tiny(*options, f"ckpt_path={cfg.paths.run}/checkpoints/last.ckpt"))
    (finished,) = tracked_runs(database)
    assert finished.info.status == "FINISHED"
    assert finished.info.run_id == crashed.info.run_id
    assert "test/f1_macro" in finished.data.metrics


def test_a_folder_that_holds_a_run_is_not_overwritten(tiny):
    fit(tiny())
    with pytest.raises(UserError, match="already holds a run"):
        fit(tiny())


def stored(tmp_path, **config):
    """A checkpoint from somebody else."""
    record = {"config": config, "class_names": ["a"]}
    torch.save({"state_dict": {}, "wafer_lab": record}, tmp_path / "bad.ckpt")
    return tmp_path / "bad.ckpt"


CNN = {"_target_": "wafer_lab.models.wafer_cnn.WaferCNN", "in_channels": 3}


@pytest.mark.parametrize(
    "target", ["urllib.request.urlretrieve", "wafer_lab.models.resnet.torch.load", "wafer_lab.errors.UserError"]
)
def test_a_checkpoint_may_only_name_networks(tmp_path, target):
    with pytest.raises(UserError, match=r"is not of wafer_lab\.models"):
        load_task(stored(tmp_path, model={"_target_": target}, head={}))


@pytest.mark.parametrize("form", ["elsewhere", "tuple", "resolver", "escaped"])
def test_a_checkpoint_hides_no_code_to_run(tmp_path, form):
    ran = tmp_path / "ran"
    node = {"_target_": "os.mkdir", "path": str(ran)}
    made = f"${{oc.create:'{{_target_: os.mkdir, path: {ran}}}'}}"
    hidden = {"elsewhere": "${evil}", "tuple": (node,), "resolver": made, "escaped": f"\\{made}"}[form]
    file = stored(tmp_path, model={**CNN, "in_channels": hidden}, head={}, evil=node)
    with pytest.raises(UserError, match="not loaded"):
        load_task(file)
    assert not ran.exists()


def test_a_checkpoint_reads_no_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    file = stored(tmp_path, model=CNN, head={}, data={"target": "${oc.env:SECRET}"})
    with pytest.raises(UserError, match="interpolation") as caught:
        load_task(file)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("config", [{}, {"model": None, "head": {}}, {"model": CNN, "head": "x"}])
def test_a_checkpoint_without_a_network_is_said(tmp_path, config):
    with pytest.raises(UserError, match="names no model and head"):
        load_task(stored(tmp_path, **config))


def test_a_network_of_another_version_is_said(tmp_path):
    with pytest.raises(UserError, match="does not fit this version"):
        load_task(stored(tmp_path, model={**CNN, "later": 1}, head={"_target_": "wafer_lab.models.heads.LinearHead"}))


def test_a_networks_other_weights_are_not_loaded(tmp_path):
    """timm would read them with whatever its torch.load takes; the weights are those of the checkpoint."""
    pytest.importorskip("timm")

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save(Payload(), tmp_path / "weights.pth")
    model = {"_target_": "wafer_lab.models.timm_encoder.timm_encoder", "name": "resnet10t", "in_channels": 3}
    model |= {"img_size": 32, "checkpoint_path": str(tmp_path / "weights.pth")}
    head = {"_target_": "wafer_lab.models.heads.LinearHead", "num_classes": 1}
    with pytest.raises(UserError, match="of another network"):  # built, and its own weights are missing
        load_task(stored(tmp_path, model=model, head=head))
    assert not (tmp_path / "ran").exists()
    for name in ("local-dir:/tmp", "hf-hub:timm/resnet10t"):
        with pytest.raises(UserError, match="timm knows no model"):
            load_task(stored(tmp_path, model={**model, "name": name}, head=head))


def test_the_best_epoch_is_judged_not_the_last(tiny, monkeypatch):
    """The last epoch is spoilt on purpose: what is scored must be the one before it."""
    monkeypatch.syspath_prepend(str(HERE))
    spoil = ["+callbacks.spoil._target_=kill.SpoilLastEpoch", "data.limit=null", "trainer.max_epochs=3"]
    result = fit(tiny(*spoil, "optimizer.lr=0.003"))
    best, last = (weights(result.run_dir / f"checkpoints/{name}.ckpt") for name in ("best", "last"))
    assert not equal(best, last)
    assert result.scores["val/f1_macro"] == pytest.approx(result.monitored, abs=0.03)
    loaded = load_task(result.run_dir).network.state_dict()
    assert all(torch.equal(loaded[k], best[f"network.{k}"]) for k in loaded)


def test_with_ema_the_averaged_weights_are_judged(tiny):
    plain, averaged = fit(tiny(run="plain")), fit(tiny("callbacks=ema", run="ema"))
    last = [weights(r.run_dir / "checkpoints/last.ckpt") for r in (plain, averaged)]
    assert not equal(*last)
    stored = torch.load(averaged.run_dir / "checkpoints/last.ckpt", weights_only=True)
    assert equal(stored["current_model_state"], last[0]), "training itself must not change"


def test_a_run_that_stopped_early_stays_stopped(tiny):
    """Killed after its last epoch, before its predictions: resuming goes straight to them."""
    options = ["trainer.max_epochs=20", "callbacks.early_stopping.patience=1", "optimizer.lr=0.0"]
    first = fit(tiny(*options))
    before = weights(first.run_dir / "checkpoints/last.ckpt")
    resumed = fit(tiny(*options, f"ckpt_path={first.run_dir}/checkpoints/last.ckpt"))
    assert equal(before, weights(first.run_dir / "checkpoints/last.ckpt"))
    assert np.array_equal(first.predictions.logits, resumed.predictions.logits)


def test_a_moved_run_remembers_its_best_score(tiny):
    first = fit(tiny("data.limit=null", "optimizer.lr=0.003", "scheduler=none", run="first"))
    moved = first.run_dir.rename(first.run_dir.parent / "moved")
    longer = ["data.limit=null", "optimizer.lr=0.003", "scheduler=none", "trainer.max_epochs=2"]
    resume = f"ckpt_path={moved}/checkpoints/last.ckpt"
    resumed = fit(tiny(*longer, resume, run="moved"))
    assert resumed.monitored >= first.monitored


def test_a_monitor_that_does_not_exist_is_told_before_training(tiny):
    cfg = tiny("task.monitor=val/f1_makro")
    with pytest.raises(UserError, match="val/f1_macro"):
        run(cfg)
    assert not Path(cfg.paths.run).exists()


def test_divergence_is_told(tiny):
    with pytest.raises(UserError, match="diverged"):
        fit(tiny("optimizer.lr=1e30", "scheduler=none", "trainer.gradient_clip_val=null", "trainer.max_epochs=3"))


def test_a_value_that_the_optimizer_refuses_is_one_message(tiny):
    with pytest.raises(UserError, match="optimizer: Invalid learning rate: -1"):
        fit(tiny("optimizer.lr=-1"))


def test_what_an_earlier_end_left_is_taken_away(tmp_path):
    from wafer_lab.workflows.outcome import remove

    for name in ("metrics.json", "figures/a.png", "checkpoints/last.ckpt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("old")
    remove(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
