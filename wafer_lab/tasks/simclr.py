"""Contrastive pretraining: two views of a wafer are to be found alike among the views of all others."""

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from wafer_lab.data.augment import MapAugment
from wafer_lab.data.batches import Batch, EpochBatches, Request
from wafer_lab.data.streams import Stream
from wafer_lab.errors import UserError
from wafer_lab.losses.contrastive import feature_spread, nt_xent
from wafer_lab.metrics.collection import classification_metrics
from wafer_lab.metrics.neighbours import knn_probabilities
from wafer_lab.tasks.classification import ClassificationTask
from wafer_lab.tasks.finetune import parameter_groups

_COLLAPSED = 0.1  # spread of features below which an epoch is warned of


class SimCLRTask(ClassificationTask):
    """Train an encoder without labels; under it, a linear probe that cannot touch it learns from those there are.

    Chen et al., "A simple framework for contrastive learning of visual representations", ICML 2020, arXiv:2002.05709.
    The network is encoder and probe, so a finished run predicts, is judged and compared like any other, and
    `weights=RUN` fine-tunes its encoder. The projection head is left behind.

    While it trains, validation logs the probe's scores and those of a vote of nearest neighbours (`val/knn_f1_macro`),
    and training how far the features spread: where they collapse into one, it warns.

    Args:
        network: An encoder under a head, which is the probe.
        loss: Of the probe.
        views: Distortions of a wafer, drawn twice; the two must share no outline that would give the pair away.
        temperature: Of NT-Xent.
        width: Of the projection head's hidden layer and of its output, (hidden, output).
        neighbours: How many vote.
        bank: Most labelled training wafers that neighbours are looked for among, during training.
        **options: As for `ClassificationTask`.
    """

    kinds = ("maps",)

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        *,
        views: MapAugment,
        temperature: float = 0.5,
        width: tuple[int, int] = (512, 128),
        neighbours: int = 20,
        bank: int = 10_000,
        **options: Any,
    ):
        if temperature <= 0 or neighbours < 1 or bank < 1:
            raise UserError("task.temperature must be above 0, task.neighbours and task.bank at least 1")
        compiled = options.pop("compile", False)
        super().__init__(network=network, loss=loss, **options)
        if self.mixup:
            raise UserError("task.mixup is for task=classification; leave it out")
        encoder: Any = network.encoder
        self._encode = (torch.compile(encoder) if compiled else encoder,)  # in a tuple, as in `Task`
        self.projector = projection_head(encoder.num_features, *width)
        self.streams = (Stream("all", (views, views)),)
        self.temperature, self.neighbours, self.bank = temperature, neighbours, bank
        self.neighbour_scores = classification_metrics(
            self.target, len(self.class_names), self.class_names, ranking=False, normal=self.normal
        )
        self.probe_loss, self.spread = (MeanMetric(nan_strategy="disable") for _ in range(2))
        self._known: tuple[Tensor, Tensor] | None = None

    def monitors(self) -> list[str]:
        """Names that `monitor` may have."""
        return [*super().monitors(), "val/knn_f1_macro"]

    def groups(self) -> list[dict[str, Any]]:
        """Network and projection head."""
        return super().groups() + parameter_groups(self.projector)

    def epoch_metrics(self) -> dict[str, Metric]:
        """Of the probe and the features, too."""
        return super().epoch_metrics() | {"probe_loss": self.probe_loss, "feature_spread": self.spread}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """NT-Xent of the two views, and the loss of the probe on the wafers that have a label."""
        features = self._encode[0](batch.image)
        first, second = self.projector(features).chunk(2)
        loss = nt_xent(first, second, self.temperature, exchange=self.trainer.world_size > 1)
        self.log_train_loss(loss, len(batch.row))
        self.spread.update(feature_spread(features.detach()))
        self.log_epoch("train/feature_spread", self.spread)
        return loss + self._probe(features.detach()[: len(batch.row)], batch)

    def _probe(self, features: Tensor, batch: Batch) -> Tensor:
        """The probe's loss; 0 where no wafer has a label."""
        known = (batch.target if batch.target.ndim == 1 else batch.target[:, 0]) >= 0
        if len(self.trainer.datamodule.split.unlabelled):  # type: ignore[attr-defined]
            features, target = features[known], batch.target[known]
        else:
            target = batch.target  # without a wait for the device, which alone knows how many are left
        logits = self.network.get_submodule("head")(features)
        loss: Tensor = self.loss(logits, target) if len(target) else logits.sum()
        if len(target):
            self.probe_loss.update(loss.detach().expand(len(target)))
        self.log_epoch("train/probe_loss", self.probe_loss)
        return loss

    def on_train_epoch_end(self) -> None:
        """Warn of a collapse."""
        spread = float(self.spread.compute())
        if spread < _COLLAPSED:
            self.print(
                f"warning: the features have all but collapsed (spread {spread:.3f} of 1): every wafer looks alike. "
                "Make the views harder (a smaller task.views.crop_side) or lower optimizer.lr"
            )

    def on_validation_epoch_start(self) -> None:
        """Forget the neighbours of the last epoch."""
        self._known = None

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count what probe and neighbours say of the batch."""
        if self._known is None:
            self._known = self._labelled_features()
        features = self._encode[0](batch.image)
        self.count(self.network.get_submodule("head")(features), batch)
        votes = knn_probabilities(*self._known, features, len(self.class_names), self.neighbours)
        self.neighbour_scores.update(votes, batch.target)

    def on_validation_epoch_end(self) -> None:
        """Log the scores of both."""
        super().on_validation_epoch_end()
        self.log("val/knn_f1_macro", self.neighbour_scores.compute()["f1_macro"], sync_dist=True)
        self.neighbour_scores.reset()

    def _labelled_features(self) -> tuple[Tensor, Tensor]:
        """Features and labels of training wafers, as they are; the same wafers in every epoch."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        count = min(self.bank, len(data.split.train))
        found = []
        for request in EpochBatches(data.first["train"], len(data.split.train), data.batch_size, seed=data.seed):
            batch = data.draw(Request(request.position.to(self.device), 0))
            found.append((self._encode[0](batch.image), batch.target))
            if sum(len(target) for _, target in found) >= count:
                break
        features, labels = (torch.cat(values)[:count] for values in zip(*found, strict=True))
        return features, labels


def projection_head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two layers with batch normalisation between: (B, inputs) features -> (B, outputs) projections."""
    return nn.Sequential(
        nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, outputs)
    )
