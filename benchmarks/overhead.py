"""What the framework adds to the network: python benchmarks/overhead.py [WAFERS].

An epoch of `workflows.fit` against a hand-written PyTorch loop, and the judgement's prediction of val and test against
another, on the same real maps (WAFER_LAB_REAL_DATA), in turn. Both sides have the same network, precision, optimizer,
schedule and gradient clipping, and draw the same batches by the same two calls. The epoch ends with validation and its
macro-F1 on either side; the framework's also writes two checkpoints and its history, with callbacks, finite checks and
metrics as they are by default.
"""

import tempfile
import time
import warnings
from functools import partial
from statistics import median
from typing import Any, ClassVar
from unittest.mock import patch

import lightning.pytorch as pl
import torch
from hydra import compose, initialize_config_dir
from measuring import REPOSITORY, Sample, arguments, publish, ratio, table, turns

from wafer_lab.config.build import build, resolved
from wafer_lab.config.resolvers import register
from wafer_lab.data.augment import MapAugment
from wafer_lab.data.canvas import encode, render
from wafer_lab.data.prepare import cached
from wafer_lab.tasks.checkpointing import AtomicCheckpointIO
from wafer_lab.workflows import assemble
from wafer_lab.workflows.assemble import build_task, build_trainer
from wafer_lab.workflows.predict import predict_split
from wafer_lab.workflows.quiet import silence

ROUNDS = 3
RECIPES = {
    "resnet18, canvas 32": ("model=resnet18", "data.canvas=32"),
    "wafer_cnn, canvas 64": ("model=wafer_cnn", "data.canvas=64"),
}


class Timed(AtomicCheckpointIO):
    """Counts the CPU seconds that checkpoints take."""

    spent: ClassVar[list[float]] = []

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save."""
        start = time.process_time()
        super().save_checkpoint(*args, **kwargs)
        self.spent.append(time.process_time() - start)


class Plain:
    """A loop of PyTorch alone over the maps of a data module."""

    def __init__(self, data: Any, network: Any, config: Any, precision: str):
        self.maps, self.targets, self.split = data.place.maps, data._targets, data.split
        self.first, self.batch, self.canvas = data.first, data.batch_size, data.canvas
        self.network, self.bf16 = network, precision == "bf16-mixed"
        steps = len(self.split.train) // self.batch
        self.optimizer = build(config.optimizer)(network.parameters())
        self.schedule = build(config.scheduler)(self.optimizer, steps)
        self.augment, self.loss, self.clip = MapAugment(), torch.nn.CrossEntropyLoss(), config.trainer.gradient_clip_val

    def epoch(self) -> None:
        """Train once over the training wafers, and validate."""
        self.network.train()
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(self.split.train), generator=generator) + self.first["train"]
        total = torch.zeros(())
        for index in order[: len(order) // self.batch * self.batch].split(self.batch):
            image = encode(self.augment.draw(self.maps, index, self.canvas, generator)[0], "one_hot")
            self.optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                loss = self.loss(self.network(image), self.targets[index])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
            self.optimizer.step()
            self.schedule.step()
            total += loss.detach()
        float(total)
        said, truth = self.predict("val", self.bf16), self.targets[self.first["val"] :][: len(self.split.val)]
        counts = torch.zeros(9, 9).index_put_((truth, said.argmax(1)), torch.ones(len(said)), accumulate=True)
        float((2 * counts.diag() / (counts.sum(0) + counts.sum(1)).clamp(min=1)).mean())

    @torch.inference_mode()
    def predict(self, part: str, bf16: bool = False) -> torch.Tensor:
        """(N, C) logits of a part."""
        self.network.eval()
        index = torch.arange(len(getattr(self.split, part))) + self.first[part]
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            drawn = (encode(render(self.maps, chunk, self.canvas), "one_hot") for chunk in index.split(self.batch))
            return torch.cat([self.network(image).float() for image in drawn])


def composed(overrides: tuple[str, ...], folder: str, wafers: int) -> Any:
    store = cached(Sample(), REPOSITORY / "outputs" / "cache").folder
    places = [f"paths.outputs={folder}", f"paths.run={folder}/run", "name=overhead", "tracking=none"]
    data = ["data=wm811k", f"data.path={store}", f"data.limit={wafers}", "data.views=none", "trainer.max_epochs=1"]
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        return compose("train", overrides=[*places, *data, *overrides])


def framework(config: Any) -> Any:
    """One epoch as `workflows.fit` runs it: a new task and trainer, whose making is not timed."""
    data = build(config.data)
    data.setup()
    task = build_task(config, resolved(config), data)
    return data, task, build_trainer(config, None)[0]


def measure(name: str, overrides: tuple[str, ...], wafers: int) -> list[tuple[object, ...]]:
    with tempfile.TemporaryDirectory() as folder:
        config = composed(overrides, folder, wafers)
        data, task, trainer = framework(config)
        plain = Plain(data, task.network, config, trainer.precision)
        # Made beforehand, one for every turn: a trainer fits once.
        with patch.object(assemble, "AtomicCheckpointIO", Timed):
            ready = [framework(config) for _ in range(ROUNDS + 1)]

        def fitted() -> None:
            own, fresh, runner = ready.pop()
            runner.fit(fresh, datamodule=own)

        train = turns({"plain": plain.epoch, "framework": fitted}, ROUNDS)
        parts, cpu = ("val", "test"), torch.device("cpu")
        sides = {
            "plain": lambda: [plain.predict(part) for part in parts],
            "framework": partial(predict_split, task.network, data, parts, cpu),
        }
        judged = turns(sides, ROUNDS)
    written = [a + b for a, b in zip(Timed.spent[::2], Timed.spent[1::2], strict=True)][1:]
    Timed.spent.clear()
    rows = []
    for what, found, saving in ((f"epoch, {name}", train, written), (f"prediction, {name}", judged, [0.0] * ROUNDS)):
        (wall, own), (bare, own_bare) = (list(zip(*found[side], strict=True)) for side in ("framework", "plain"))
        rest = [a - b for a, b in zip(own, saving, strict=True)]
        shown = (f"{median(side):.2f}" for side in (own_bare, own, saving))
        rows.append((what, *shown, ratio(wall, bare, 3), ratio(own, own_bare, 3), ratio(rest, own_bare, 3)))
    return rows


def main() -> None:
    wafers = int((arguments() or [4096])[0])
    register()
    silence()
    warnings.simplefilter("ignore")
    pl.seed_everything(0, verbose=False)
    rows = [row for name, overrides in RECIPES.items() for row in measure(name, overrides, wafers)]
    words = (
        f"{wafers:,} real wafers (70 % for training, 10 % for validation), batches of 128, {torch.get_num_threads()} "
        f"threads, medians and spread of {ROUNDS} turns. Seconds are the CPU's; checkpoints are a fixed cost of an "
        "epoch, whatever its length: two files of weights and both moments of the optimizer."
    )
    head = (
        "what", "plain loop, s", "framework, s", "of it checkpoints, s", "framework / plain, clock",
        "framework / plain, CPU", "without checkpoints, CPU",
    )  # fmt: skip
    publish("overhead", words, table(head, rows))


if __name__ == "__main__":
    main()
