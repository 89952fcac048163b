"""Which layers train when, and how fast."""

from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from wafer_lab.config.build import build, resolved
from wafer_lab.errors import UserError
from wafer_lab.losses.modules import CrossEntropyLoss
from wafer_lab.models.classifier import Classifier
from wafer_lab.models.heads import LinearHead
from wafer_lab.models.resnet import resnet
from wafer_lab.models.wafer_cnn import WaferCNN
from wafer_lab.tasks.classification import ClassificationTask
from wafer_lab.tasks.finetune import Finetune, layers, parameter_groups
from wafer_lab.tasks.schedules import cosine, one_cycle
from wafer_lab.workflows.assemble import build_task
from wafer_lab.workflows.checkpoint import check_resumable
from wafer_lab.workflows.fit import fit

STAGES = ["head", "layer4", "layer3", "layer2", "layer1", "stem"]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Classifier(resnet(3, attention="cbam", width=4), LinearHead(32, 5))


def trained(network):
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def named(network, start):
    return {name for name, _ in network.named_parameters() if name.startswith(start)}


def test_new_layers_train_with_the_head_except_in_a_probe(network):
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    for probe in (False, True):
        found = layers(network, probe)
        assert list(found) == STAGES
        assert sorted(id(p) for held in found.values() for p in held) == sorted(names)
        head = {names[id(p)] for p in found["head"]}
        assert head == named(network, ("head.",) if probe else ("head.", "encoder.attention."))


@pytest.mark.parametrize(
    ("finetune", "stages"),
    [
        (Finetune("full"), [6, 6, 6]),
        (Finetune("frozen"), [1, 1, 1]),
        (Finetune("linear_probe"), [1, 1, 1]),
        (Finetune("gradual"), [1, 2, 3]),
        (Finetune("gradual", epochs_per_stage=2), [1, 1, 2]),
    ],
)
def test_stages_in_training_by_epoch(network, finetune, stages):
    for epoch, count in enumerate(stages):
        assert finetune.begin_epoch(network, epoch) == STAGES[:count]
    assert Finetune("gradual").begin_epoch(network, 99) == STAGES
    assert trained(network) == named(network, "")


def test_gradual_knows_what_it_never_reaches(network):
    assert Finetune("gradual").never_thawed(network, 4) == ["layer1", "stem"]
    assert Finetune("gradual", epochs_per_stage=2).never_thawed(network, 10) == ["stem"]
    assert Finetune("gradual").never_thawed(network, 6) == Finetune("frozen").never_thawed(network, 1) == []


def test_gradual_thaws_from_the_top(network):
    Finetune("gradual").begin_epoch(network, 1)
    assert trained(network) == named(network, ("head.", "encoder.attention.", "encoder.layer4."))
    Finetune("gradual").begin_epoch(network, 0)  # the epoch alone decides
    assert trained(network) == named(network, ("head.", "encoder.attention."))


@pytest.mark.parametrize(("mode", "adapts"), [("frozen", True), ("linear_probe", False)])
def test_batch_norm_of_a_frozen_encoder_adapts_and_that_of_a_probe_does_not(network, mode, adapts):
    network.train()
    before = deepcopy(network.encoder.state_dict())
    Finetune(mode).begin_epoch(network, 0)
    network(torch.rand(4, 3, 32, 32)).sum().backward()
    changed = {name for name, tensor in network.encoder.state_dict().items() if not torch.equal(tensor, before[name])}
    assert bool(changed) == adapts
    assert all("running_" in name or "num_batches" in name for name in changed)
    assert network.head.training
    gradients = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert gradients == named(network, ("head.", "encoder.attention.") if mode == "frozen" else "head.")


def test_layer_decay_slows_each_stage_by_its_depth(network):
    groups = parameter_groups(network, 0.5)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    expected = {p: 0.5**depth for depth, stage in enumerate(layers(network).values()) for p in stage}
    assert scale == {id(p): value for p, value in expected.items()}
    for group in groups:
        assert all((p.ndim <= 1) == (group.get("weight_decay") == 0) for p in group["params"])
    assert len(parameter_groups(network)) == 2  # as ever without it, so older runs resume


@pytest.mark.parametrize("schedule", [None, cosine, one_cycle])
def test_a_schedule_scales_every_stages_own_rate(network, schedule):
    task = ClassificationTask(
        network, CrossEntropyLoss("multiclass"), target="multiclass", class_names=list("abcde"),
        optimizer=partial(torch.optim.AdamW, lr=0.1), scheduler=schedule, finetune=Finetune(layer_decay=0.5),
    )  # fmt: skip
    task.trainer = type("Trainer", (), {"estimated_stepping_batches": 10})()
    made = task.configure_optimizers()
    optimizer = made["optimizer"] if schedule else made
    for _ in range(10):
        rates = [group["lr"] for group in optimizer.param_groups]
        # one_cycle ends at the same share of each peak, so the ratios stay
        assert np.allclose(np.array(rates) / rates[0], np.repeat(0.5 ** np.arange(6), 2))
        optimizer.step()
        if schedule:
            made["lr_scheduler"]["scheduler"].step()
    assert schedule or rates[0] == 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "freeze"}, "mode is 'freeze'; choose full, frozen"),
        ({"layer_decay": 0.0}, "layer_decay must be above 0 and at most 1, not 0"),
        ({"layer_decay": 1.5}, "layer_decay must be above 0 and at most 1, not 1.5"),
        ({"mode": "frozen", "layer_decay": 0.9}, "layers that mode=frozen does not train"),
        ({"mode": "gradual", "epochs_per_stage": 0}, "epochs_per_stage must be at least 1, not 0"),
    ],
)
def test_settings_that_make_no_sense(options, message):
    with pytest.raises(UserError, match=message):
        Finetune(**options)


# ------------------------------------------------------------------------------------------------ within a run


@pytest.fixture
def donor(tmp_path):
    """A file of weights for model=wafer_cnn model.width=8, and what it holds."""
    torch.manual_seed(5)
    network = WaferCNN(3, width=8)
    network(torch.rand(8, 3, 32, 32))
    torch.save(network.state_dict(), tmp_path / "donor.pth")
    return f"weights={tmp_path}/donor.pth", network.state_dict()


def changed(folder, before):
    """Encoder parameters and buffers that differ from `before` in a run's last checkpoint."""
    state = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return {name for name, tensor in before.items() if not torch.equal(state[f"network.encoder.{name}"], tensor)}


def test_gradual_from_a_file_resumes_bit_for_bit(tiny, donor, capsys):
    weights, before = donor
    options = [weights, "finetune=gradual", "model.width=8", "scheduler=none", "optimizer.weight_decay=0.5"]
    whole = fit(tiny(*options, "trainer.max_epochs=3", run="whole"))
    said = capsys.readouterr().out
    assert f"weights {weights.removeprefix('weights=')}: {len(before)} tensors" in said
    assert "training head: 585 of" in said
    assert "training head, stage2, stage1: " in said
    assert "warning: stem stay frozen, because 3 epochs are too short" in said
    half = fit(tiny(*options, "trainer.max_epochs=1", run="half"))
    said = capsys.readouterr().out
    assert "warning: stage2, stage1, stem stay frozen, because 1 epoch is too short; raise trainer.max_epochs" in said
    parameters = {name for name, _ in WaferCNN(3, width=8).named_parameters()}
    assert not changed(half.run_dir, before) & parameters
    last = half.run_dir / "checkpoints/last.ckpt"
    fit(tiny(*options, "trainer.max_epochs=3", f"ckpt_path={last}", run="half"))
    assert "weights /" not in capsys.readouterr().out.partition("resumes")[2]
    states = [torch.load(r.run_dir / "checkpoints/last.ckpt", weights_only=True) for r in (whole, half)]
    first, second = (state["state_dict"] for state in states)
    assert all(torch.equal(first[name], second[name]) for name in first)
    moved = changed(whole.run_dir, before) & parameters
    assert moved == {name for name in parameters if name.startswith(("stage1", "stage2"))}


def test_a_linear_probe_leaves_the_encoder_as_it_was_over_epochs(tiny, donor):
    weights, before = donor
    result = fit(tiny(weights, "finetune=linear_probe", "model.width=8", "trainer.max_epochs=2"))
    assert not changed(result.run_dir, before)


def task_of(cfg):
    datamodule = build(cfg.data)
    datamodule.setup()
    return build_task(cfg, resolved(cfg), datamodule)


def test_a_donor_that_may_have_seen_the_test_wafers_is_named(tiny, tmp_path, capsys):
    small = ["model.width=8", "scheduler=none"]
    theirs = task_of(tiny(*small, "data.seed=0"))
    state = {f"network.{name}": tensor for name, tensor in theirs.network.state_dict().items()}
    torch.save({"state_dict": state, "wafer_lab": theirs.record}, tmp_path / "donor.ckpt")
    capsys.readouterr()
    task_of(tiny(*small, f"weights={tmp_path}/donor.ckpt"))
    assert "may have seen" not in capsys.readouterr().out
    task_of(tiny(*small, f"weights={tmp_path}/donor.ckpt", "data.val=0.2"))
    assert "was trained on another split of these data, and may have seen the test wafers" in capsys.readouterr().out


def test_a_probe_of_layers_that_the_weights_lack_is_refused(tiny, tmp_path):
    torch.save(resnet(3, width=8).state_dict(), tmp_path / "x.pth")
    options = ["model=resnet18_cbam", "model.width=8", f"weights={tmp_path}/x.pth"]
    with pytest.raises(UserError, match=r"lacks attention\.0.*random; use finetune=frozen"):
        task_of(tiny(*options, "finetune=linear_probe"))
    task_of(tiny(*options, "finetune=frozen"))


def test_a_run_resumes_with_its_own_weights_and_finetuning_also_one_older_than_these(tiny, tmp_path):
    def record(*options):
        facts = {"class_names": ["a"], "data_fingerprint": "f", "split_digest": "s"}
        return facts | {"config": resolved(tiny(*options))}

    before, path = record("model=resnet18"), tmp_path / "last.ckpt"
    torch.save({"wafer_lab": before}, path)
    assert check_resumable(path, record("model=resnet18"))[1] == before
    with pytest.raises(UserError, match=r"finetune\.mode was full, is frozen"):
        check_resumable(path, record("model=resnet18", "finetune=frozen"))
    with pytest.raises(UserError, match="weights was None, is imagenet"):
        check_resumable(path, record("model=resnet18", "weights=imagenet"))
    for key in ("finetune", "weights"):
        del before["config"][key]
    assert before["config"]["model"].pop("deformable") == []
    torch.save({"wafer_lab": before}, path)
    assert check_resumable(path, record("model=resnet18"))[1] == before


def test_dropout_of_a_probed_encoder_is_off():
    network = Classifier(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), nn.Linear(4, 2)).train()
    network.encoder.stages = lambda: {"all": list(network.encoder.parameters())}
    network.encoder.added = ()
    Finetune("linear_probe").begin_epoch(network, 0)
    assert not network.encoder[1].training
