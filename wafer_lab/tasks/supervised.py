"""What tasks that learn from targets share: one loss, and scores that choose the checkpoint."""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection

from wafer_lab.data.batches import Batch
from wafer_lab.errors import DivergedError
from wafer_lab.tasks.base import Task


class SupervisedTask(Task):
    """Train on (image, target); log the loss and the scores of an epoch's validation.

    A subclass says which scores, and how logits become the probabilities that they take. `val/loss` is the mean of the
    batches' losses over wafers; with class weights each of those is a weighted mean, so it depends a little on the size
    of batches.

    Args:
        network: (B, C, S, S) images -> logits.
        loss: (logits, target) -> scalar.
        scores: Fed (probabilities, target).
        class_names: Names in the order of the logits.
        monitor: The validation score that chooses the best checkpoint.
        mode: Whether `monitor` is to be maximised or minimised.
        **options: As for `Task`.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        *,
        scores: MetricCollection,
        class_names: Sequence[str],
        monitor: str,
        mode: Literal["max", "min"],
        **options: Any,
    ):
        super().__init__(network, **options)
        self.loss, self.scores, self.monitor, self.mode = loss, scores, monitor, mode
        self.class_names = tuple(class_names)
        # Lightning's own mean over processes cuts the number of wafers to a whole number. `disable` looks for no NaN.
        self.validated = MeanMetric(nan_strategy="disable")

    def probabilities(self, logits: Tensor) -> Tensor:
        """Float32 in [0, 1], of the shape of the logits: here a sigmoid each."""
        return logits.float().sigmoid()

    def blank(self) -> tuple[Tensor, Tensor]:
        """The least that scores can be computed of: probabilities and target of one sample."""
        raise NotImplementedError

    def monitors(self) -> list[str]:
        """Names that `monitor` may have."""
        scores = self.scores.clone(prefix="val/")
        scores.update(*self.blank())
        return ["val/loss", *scores.compute()]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        loss: Tensor = self.loss(self(batch.image), batch.target)
        self.log_train_loss(loss, len(batch.row))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count the batch into the epoch's loss and scores."""
        self.count(self(batch.image), batch)

    def count(self, logits: Tensor, batch: Batch) -> None:
        """Count what the network says of a batch into the epoch's loss and scores."""
        if self.on_any_process(not logits.isfinite().all()):  # all stop together
            raise DivergedError(
                f"training diverged: the network's outputs are not finite after epoch {self.current_epoch + 1}; the "
                "rows of its last batch are beside config.yaml (diverged.json). Lower optimizer.lr, or try "
                "trainer.precision=32-true"
            )
        # Once per wafer: torchmetrics ignores weights where it looks for no NaN.
        self.validated.update(self.loss(logits, batch.target).expand(len(batch.row)))
        self.scores.update(self.probabilities(logits), batch.target)

    def on_validation_epoch_end(self) -> None:
        """Log loss and scores of the epoch: of all wafers, whichever process saw them."""
        scores = {"loss": self.validated.compute()} | self.scores.compute()
        self.log_dict({f"val/{name}": value for name, value in scores.items()}, sync_dist=True)
        self.validated.reset()
        self.scores.reset()
