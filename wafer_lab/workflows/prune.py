"""A smaller network of a trained one: the least weights set to zero, the others trained on, a new predictor fitted.

Zeros by themselves make no network faster: they are multiplied like other numbers. What they save is the packed size.
"""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.nn.utils import prune

from wafer_lab.config.build import build, check_targets
from wafer_lab.data.datamodule import WaferDataModule
from wafer_lab.errors import UserError
from wafer_lab.evaluation.judgement import judge_predictions
from wafer_lab.tasks.base import Task
from wafer_lab.tasks.finetune import Finetune
from wafer_lab.workflows.assemble import build_loss
from wafer_lab.workflows.checkpoint import Loaded
from wafer_lab.workflows.finished import CONFIG
from wafer_lab.workflows.predict import predict_split
from wafer_lab.workflows.quiet import silence
from wafer_lab.workflows.seen import learns_from_labels_alone

# A tenth of what the default optimizer learns with: the network is trained already.
_LR = 1e-4
# Rooms that a stored config may name things of, by group.
_ROOMS = {"task": "wafer_lab.tasks", "loss": "wafer_lab.losses", "imbalance": "wafer_lab.imbalance"}


class Pruned(NamedTuple):
    """A pruned network.

    Attributes:
        loaded: The network with its own predictor, in place of the run's.
        scores: Flat metrics of val and test, as in a run's metrics.json.
        zeros: Share of the convolutions' and linear layers' weights that are zero.
    """

    loaded: Loaded
    scores: dict[str, float]
    zeros: float


def prune_network(run: Path, loaded: Loaded, datamodule: WaferDataModule, amount: float, epochs: int) -> Pruned:
    """Set the weights of the least magnitude to zero and train the others on, with the run's loss and imbalance.

    Unstructured: wherever in the network they are (Han et al. 2015, arXiv:1506.02626), all at once.

    Args:
        run: The run's folder, for messages.
        loaded: The trained network, which is changed, and its predictor, whose settings stay.
        datamodule: The run's, set up.
        amount: Share of the weights, in (0, 1).
        epochs: Of fine-tuning, without augmentation.

    Raises:
        UserError: The share is out of range, the run's task learns from unlabelled wafers, or its config names what
            is not ours.
    """
    if not 0 < amount < 1:
        raise UserError(f"--prune {amount:g} is no share of the weights; choose one between 0 and 1, such as 0.5")
    if not learns_from_labels_alone(loaded.config):
        raise UserError(
            f"--prune trains on labelled wafers, and {run} was trained on unlabelled ones, too; fine-tune it with "
            f"weights={run} first, and prune that run"
        )
    silence()
    network, weights = loaded.network.train(), _weights(loaded.network)
    prune.global_unstructured(weights, pruning_method=prune.L1Unstructured, amount=amount)
    pl.seed_everything(loaded.config.seed, workers=True, verbose=False)
    trainer = pl.Trainer(
        max_epochs=epochs,
        devices=1,
        num_nodes=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        gradient_clip_val=1.0,
    )
    trainer.fit(_task(run, loaded, datamodule), datamodule=datamodule)
    for module, name in weights:
        prune.remove(module, name)  # type: ignore[no-untyped-call]
    zeros = sum(int((m.weight == 0).sum()) for m, _ in weights) / sum(m.weight.numel() for m, _ in weights)
    table = predict_split(network, datamodule, ("val", "test"), trainer.strategy.root_device)
    judgement = judge_predictions(table, loaded.predictor.settings, alternatives=False)
    fitted = loaded._replace(network=network.cpu(), predictor=judgement.predictor)
    return Pruned(fitted, judgement.scores, zeros)


def _weights(network: nn.Module) -> list[tuple[Any, str]]:
    return [(module, "weight") for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def _task(run: Path, loaded: Loaded, datamodule: WaferDataModule) -> Task:
    """The run's task over the network at hand."""
    config = OmegaConf.to_container(loaded.config)
    assert isinstance(config, dict)
    for group, room in _ROOMS.items():
        check_targets(config[group], room, run / CONFIG)
    task: Task = build(
        loaded.config.task,
        network=loaded.network,
        loss=build_loss(loaded.config, datamodule),
        class_names=datamodule.class_names,
        optimizer=partial(torch.optim.AdamW, lr=_LR, weight_decay=0.0),
        scheduler=None,
        finetune=Finetune(),
        record=dict(loaded.record),
    )
    return task
