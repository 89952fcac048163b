"""Which layers of a network train when, and how fast."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from wafer_lab.errors import UserError


@dataclass(frozen=True)
class Finetune:
    """How a network with pretrained weights is trained.

    Layers that published networks do not have (``Encoder.added``: attention, offsets) are new like the head and train
    with it, except in a linear probe.

    Attributes:
        mode: ``full`` trains everything; ``frozen`` the head alone, while batch norm of the encoder adapts its
            statistics to the data; ``linear_probe`` the head on features that do not change at all, without batch
            norm's adapting and without dropout in the encoder; ``gradual`` begins as frozen and thaws one stage after
            the other from the top (ULMFiT, Howard and Ruder 2018, arXiv:1801.06146).
        layer_decay: The learning rate of a stage is that of the stage above it times this, in (0, 1]; the head has
            ``optimizer.lr`` (Clark et al. 2020, arXiv:2003.10555; 0.75 is usual for transformers).
        epochs_per_stage: Of ``gradual``: epochs before the next stage is thawed.
    """

    mode: Literal["full", "frozen", "linear_probe", "gradual"] = "full"
    layer_decay: float = 1.0
    epochs_per_stage: int = 1

    def __post_init__(self) -> None:
        if self.mode not in ("full", "frozen", "linear_probe", "gradual"):
            raise UserError(f"mode is {self.mode!r}; choose full, frozen, linear_probe or gradual")
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"layer_decay must be above 0 and at most 1, not {self.layer_decay}")
        if self.layer_decay < 1 and self.mode in ("frozen", "linear_probe"):
            raise UserError(f"layer_decay slows layers that mode={self.mode} does not train; use full or gradual")
        if self.epochs_per_stage < 1:
            raise UserError(f"epochs_per_stage must be at least 1, not {self.epochs_per_stage}")

    def begin_epoch(self, network: Any, epoch: int) -> list[str]:
        """Freeze what does not train in an epoch and thaw what does; a function of the epoch alone.

        Args:
            network: An encoder under a head, in training mode.
            epoch: Counted from 0.

        Returns:
            Names of the stages that train, from the top down.
        """
        stages = layers(network, probe=self.mode == "linear_probe")
        thawed = {"full": len(stages), "gradual": 1 + epoch // self.epochs_per_stage}.get(self.mode, 1)
        for depth, parameters in enumerate(stages.values()):
            for parameter in parameters:
                parameter.requires_grad_(depth < thawed)
        if self.mode == "linear_probe":
            network.encoder.eval()
        return list(stages)[:thawed]

    def never_thawed(self, network: Any, epochs: int) -> list[str]:
        """The stages that `gradual` does not reach in so many epochs, from the top down; none in other modes."""
        if self.mode != "gradual":
            return []
        return list(layers(network))[1 + max(0, epochs - 1) // self.epochs_per_stage :]

    def too_short(self, network: Any, epochs: int) -> str | None:
        """A warning of the stages that so many epochs leave frozen; None where all train in the end."""
        frozen = self.never_thawed(network, epochs)
        if not frozen:
            return None
        what = f"{epochs} epoch{' is' if epochs == 1 else 's are'}"
        return (
            f"warning: {', '.join(frozen)} stay frozen, because {what} too short; raise trainer.max_epochs or lower "
            "finetune.epochs_per_stage"
        )


def layers(network: Any, probe: bool = False) -> dict[str, list[nn.Parameter]]:
    """The parameters of a network by stage, from the top down.

    Args:
        network: An encoder under a head.
        probe: Leave the encoder's added layers in their stages.

    Returns:
        ``head``, which also holds the encoder's added layers, then the encoder's stages, the last one first. Every
        parameter is in one of them.
    """
    encoder = network.encoder
    kinds = () if probe else encoder.added
    added = {id(p) for name, p in encoder.named_parameters() if any(kind in name for kind in kinds)}
    stages = {name: [p for p in held if id(p) not in added] for name, held in encoder.stages().items()}
    below = {id(p) for held in stages.values() for p in held}
    head = [p for p in network.parameters() if id(p) not in below]
    return {"head": head} | {name: stages[name] for name in reversed(stages) if stages[name]}


def parameter_groups(network: nn.Module, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels only; biases and normalisation gains go without.

    Args:
        network: Any module; with ``layer_decay`` below 1 an encoder under a head.
        layer_decay: As of ``Finetune``.

    Returns:
        Two parameter groups for an optimizer, the second with `weight_decay` 0; with ``layer_decay`` below 1 two for
        each stage, from the top down, with `lr_scale`, what their learning rate is to be multiplied by.
    """
    stages = [list(network.parameters())] if layer_decay == 1 else list(layers(network).values())
    groups: list[dict[str, Any]] = []
    for depth, parameters in enumerate(stages):
        trained = [p for p in parameters if p.requires_grad]
        scale = {"lr_scale": layer_decay**depth} if layer_decay < 1 else {}
        groups.append({"params": [p for p in trained if p.ndim > 1], **scale})
        groups.append({"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0, **scale})
    return groups
