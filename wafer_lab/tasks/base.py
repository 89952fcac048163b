"""What every task shares: optimizer, schedule, exact resume, and a checkpoint that says what it is."""

from collections.abc import Callable, Iterable
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric, Metric

from wafer_lab.data.streams import LABELLED, Stream
from wafer_lab.errors import UserError
from wafer_lab.tasks.finetune import Finetune, parameter_groups

Record = dict[str, Any]
_STEP = 1  # sets the chances of a step, such as dropout's, apart from those of its batch's distortions


class Task(pl.LightningModule):
    """A network in training.

    Attributes:
        streams: What its training batches hold; of several streams `training_step` gets a tuple of batches.

    Args:
        network: What is trained and exported; a plain module.
        optimizer: Parameter groups -> optimizer.
        scheduler: (optimizer, total steps) -> schedule per step, or None.
        finetune: Which layers train when, and how fast; None trains all alike.
        record: What a checkpoint says of its run (`config`, `class_names`, `split_digest`, ...): plain dicts,
            lists and scalars, so that loading it never runs code.
        seed: The run's seed.
        channels_last: Keep weights and activations channels last, which convolutions are fastest on.
        compile: Run the network through torch.compile.
    """

    streams: tuple[Stream, ...] = LABELLED

    def __init__(
        self,
        network: nn.Module,
        *,
        optimizer: Callable[[Iterable[dict[str, Any]]], Optimizer],
        scheduler: Callable[[Optimizer, int], LRScheduler] | None = None,
        finetune: Finetune | None = None,
        record: Record | None = None,
        seed: int = 0,
        channels_last: bool = True,
        compile: bool = False,
    ):
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last) if channels_last else network
        # Held in a tuple so that the compiled wrapper adds no second copy to the state dict.
        self._forward = (torch.compile(self.network) if compile else self.network,)
        self.optimizer, self.scheduler = optimizer, scheduler
        self.finetune = finetune or Finetune()
        self.record, self.seed = record or {}, seed
        self._training: list[str] = []  # names of the stages
        self._logged: dict[str, int] = {}  # metric -> the epoch that it was last logged in
        self.train_loss = MeanMetric(nan_strategy="disable")  # of the epoch so far; `disable` waits for no device

    def monitors(self) -> list[str]:
        """Names of the values that `monitor` may choose from."""
        raise NotImplementedError

    def forward(self, image: Tensor) -> Any:
        """Run the network."""
        return self._forward[0](image)

    def configure_optimizers(self) -> Any:
        """The optimizer of all layers, frozen ones included, and, where one is set, its schedule, stepped per batch."""
        try:
            optimizer = self.optimizer(self.groups())
        except ValueError as error:  # torch's words for a value out of its range
            raise UserError(f"optimizer: {error}; choose another value") from error
        for group in optimizer.param_groups:
            group["lr"] *= group.get("lr_scale", 1.0)
        if self.scheduler is None:
            return optimizer
        schedule = self.scheduler(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def groups(self) -> list[dict[str, Any]]:
        """What the optimizer trains, in groups."""
        return parameter_groups(self.network, self.finetune.layer_decay)

    def on_train_start(self) -> None:
        """Keep a run stopped that had stopped early before it was resumed; freeze as its epoch had."""
        if self.current_epoch == 0 and (warning := self.finetune.too_short(self.network, self.trainer.max_epochs or 0)):
            self.print(warning)
        self._freeze()
        stops = [c for c in self.trainer.callbacks if isinstance(c, EarlyStopping)]  # type: ignore[attr-defined]
        if any(stop.wait_count >= stop.patience for stop in stops):
            self.trainer.should_stop = True

    def on_train_epoch_start(self) -> None:
        """Freeze and thaw."""
        self._freeze()

    def _freeze(self) -> None:
        """Freeze and thaw what this epoch does, and say so where that changes."""
        if self.finetune.mode == "full":
            return
        stages = self.finetune.begin_epoch(self.network, self.current_epoch)
        if stages != self._training:
            sizes = {True: 0, False: 0}
            for parameter in self.network.parameters():
                sizes[parameter.requires_grad] += parameter.numel()
            self.print(f"training {', '.join(stages)}: {sizes[True]:,} of {sum(sizes.values()):,} parameters")
        self._training = stages

    def on_any_process(self, here: bool) -> bool:
        """Whether something that every process is asked holds on one of them."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return here
        return bool(self.trainer.strategy.reduce_boolean_decision(here, all=False))

    def log_train_loss(self, loss: Tensor, size: int) -> None:
        """Count a batch of `size` wafers into the epoch's mean training loss."""
        self.train_loss.update(loss.detach().expand(size))  # which ignores weights where it looks for no NaN
        self.log_epoch("train/loss", self.train_loss)

    def epoch_metrics(self) -> dict[str, Metric]:
        """What counts over an epoch of training; a run that is stopped within one goes on counting."""
        return {"loss": self.train_loss}

    def log_epoch(self, name: str, metric: Metric) -> None:
        """Log what a metric comes to over the epoch; Lightning is told once, since that costs it a millisecond."""
        if self._logged.get(name) != self.current_epoch:
            self.log(name, metric, on_step=False, on_epoch=True)
            self._logged[name] = self.current_epoch

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Make all that is random in a step a function of its place: a resumed run then repeats it exactly."""
        place = (self.seed, self.current_epoch, batch_idx, self.global_rank, _STEP)
        state = np.random.SeedSequence(place).generate_state(1)
        torch.manual_seed(int(state[0]))

    def on_validation_start(self) -> None:
        """Log the learning rate that the epoch ended with; later it would miss the epoch's row in the history."""
        rate = float(self.trainer.optimizers[0].param_groups[0]["lr"])
        self.log("train/learning_rate", rate, sync_dist=True)  # which is the same in every process

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the run's record beside the weights."""
        checkpoint["wafer_lab"] = self.record
