"""Where the time of a SimCLR step goes: python benchmarks/simclr.py [STEPS].

`lightning.Trainer` trains `task=simclr` as a run does, both views of every wafer cropped, blurred, cut out and noisy,
on real maps (WAFER_LAB_REAL_DATA), on one core. Forward is that of encoder and projection head; backward is everything
from the loss; the rest is drawing the views, NT-Xent, the probe, the optimizer and Lightning. Seconds are the CPU's.
"""

import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any

import lightning.pytorch as pl
import torch
from hydra import compose, initialize_config_dir
from measuring import REPOSITORY, Sample, arguments, publish, table

from wafer_lab.config.build import build, resolved
from wafer_lab.config.resolvers import register
from wafer_lab.data.prepare import cached
from wafer_lab.workflows.assemble import build_task, build_trainer
from wafer_lab.workflows.quiet import silence

BATCH = 128
RECIPES = {
    "resnet18, canvas 64": ("model=resnet18",),
    "resnet18_3x3 of width 32, canvas 64": ("model=resnet18_3x3", "model.width=32"),
    "wafer_cnn, canvas 64": ("model=wafer_cnn",),
}


class Stopwatch(pl.Callback):
    """CPU seconds of every step, by what they went into."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.spent: dict[str, float] = defaultdict(float)
        self.began = 0.0

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, counted."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                self.spent[name] += time.process_time() - start

        return counted

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Watch the parts."""
        pl_module._encode = (self.timed("forward", pl_module._encode[0]),)
        pl_module.projector.forward = self.timed("forward", pl_module.projector.forward)
        data: Any = trainer.datamodule
        data.draw = self.timed("drawing both views", data.draw)
        trainer.strategy.backward = self.timed("backward", trainer.strategy.backward)
        self.began = time.process_time()

    def on_train_batch_end(self, *_: Any) -> None:
        """End a step; the next one begins with its batch."""
        now = time.process_time()
        self.steps.append({"step": now - self.began, **self.spent})
        self.began = now
        self.spent.clear()


def measure(name: str, overrides: tuple[str, ...], steps: int) -> tuple[object, ...]:
    store = cached(Sample(), REPOSITORY / "outputs" / "cache").folder
    with tempfile.TemporaryDirectory() as folder:
        places = [f"paths.outputs={folder}", f"paths.run={folder}/run", "name=simclr", "tracking=none"]
        data = ["data=wm811k", f"data.path={store}", f"data.batch_size={BATCH}", f"data.limit={32 * BATCH}"]
        length = [f"+trainer.max_steps={steps + 1}", "+trainer.limit_val_batches=0"]
        length += [f"callbacks.{name}=null" for name in ("best", "last", "early_stopping", "history")]
        with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
            config = compose("train", overrides=["task=simclr", *places, *data, *length, *overrides])
        datamodule = build(config.data)
        datamodule.open_and_split()
        task = build_task(config, resolved(config), datamodule)
        datamodule.setup()
        watch = Stopwatch()
        trainer, _ = build_trainer(config, None, [watch])
        trainer.fit(task, datamodule=datamodule)
    taken = watch.steps[1:]
    parts = {
        part: median(step[part] for step in taken) for part in ("step", "forward", "backward", "drawing both views")
    }
    outside = sorted(1 - (step["forward"] + step["backward"]) / step["step"] for step in taken)
    spread = f"{median(outside):.1%} ({outside[0]:.1%} to {outside[-1]:.1%})"
    drawn = parts["drawing both views"] / parts["step"]
    return (name, *(f"{parts[part]:.3f}" for part in ("step", "forward", "backward")), spread, f"{drawn:.1%}")


def main() -> None:
    steps = int((arguments() or [5])[0])
    torch.set_num_threads(1)
    register()
    silence()
    warnings.simplefilter("ignore")
    pl.seed_everything(0, verbose=False)
    rows = [measure(name, overrides, steps) for name, overrides in RECIPES.items()]
    head = (
        "network",
        "step, s",
        "forward, s",
        "backward, s",
        "outside forward and backward",
        "of it drawing the views",
    )
    words = (
        f"`task=simclr` on real maps, {BATCH} wafers in two views each, one core, medians and spread of {steps} steps."
    )
    publish("simclr", words, table(head, rows))


if __name__ == "__main__":
    main()
