"""What a trainer is built with."""

import pytest
import torch

from wafer_lab.errors import UserError
from wafer_lab.workflows.assemble import build_trainer
from wafer_lab.workflows.devices import device_for, fastest_precision


@pytest.mark.parametrize(
    ("able", "precision"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, "32-true"),
        ({"avx512_bf16": True}, "bf16-mixed"),
        ({"amx_bf16": True}, "bf16-mixed"),
        ({}, "32-true"),
    ],
)
def test_bfloat16_only_where_the_processor_computes_in_it(monkeypatch, able, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert fastest_precision("cpu") == precision
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert fastest_precision("auto") == precision


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_only_where_the_gpu_computes_in_it(monkeypatch, native):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    assert fastest_precision("auto") == fastest_precision("gpu") == ("bf16-mixed" if native else "32-true")


def test_the_accelerator_decides_where_networks_run_that_no_trainer_places(monkeypatch):
    for there in (True, False):
        monkeypatch.setattr(torch.accelerator, "is_available", lambda there=there: there)
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert device_for("cpu").type == "cpu"
        assert device_for().type == device_for("gpu").type == ("cuda" if there else "cpu")


def test_a_gpu_that_is_not_there_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(UserError, match="PyTorch sees no GPU on this machine; use trainer=default"):
        build_trainer(tiny("trainer=gpu", "trainer.accelerator=gpu"), logger=None)


def test_a_precision_that_is_asked_for_is_used(tiny, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    for asked, used in [("auto", "bf16-mixed"), ("32-true", "32-true")]:
        trainer, _ = build_trainer(tiny(f"trainer.precision={asked}"), logger=None)
        assert trainer.precision == used
