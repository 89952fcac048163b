"""Where the time of a training step goes on a GPU: the network, the data, the framework.

For each recipe, side by side in one process on the same maps: images per second of the network's own step (forward,
backward, optimizer on one fixed batch) in eager mode, as a recorded CUDA graph, and compiled; of the data path alone;
and of `lightning.Trainer` with everything. Beside them, the matrix rate and the memory bandwidth of the same card.
    python benchmarks/gpu.py LSWMD.pkl [recipe ...]      # runs on a CPU too, to see that it runs
"""

import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import lightning.pytorch as pl
import torch
from hydra import compose, initialize_config_dir
from torch.utils.flop_counter import FlopCounterMode

from wafer_lab.config.build import build, resolved
from wafer_lab.config.resolvers import register
from wafer_lab.workflows.assemble import build_task
from wafer_lab.workflows.quiet import silence

CONF = Path(__file__).resolve().parents[1] / "conf"
RECIPES = {
    "resnet18_cbam, 224, batch 128": ("model=resnet18_cbam", "loss=focal", "data.canvas=224", "data.batch_size=128"),
    "resnet18, 64, batch 256": ("model=resnet18", "data.batch_size=256"),
    "resnet18_3x3, width 32, 64, batch 256": ("model=resnet18_3x3", "model.width=32", "data.batch_size=256"),
    "SimCLR, resnet18_3x3, width 32, 64, batch 256": (
        "task=simclr", "model=resnet18_3x3", "model.width=32", "data.batch_size=256",
    ),
}  # fmt: skip
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
STEPS = 60 if CUDA else 3
WAYS = ("eager", "graphed", "compiled") if CUDA else ("eager",)


def wait() -> None:
    if CUDA:
        torch.cuda.synchronize()


def seconds(run: Callable[[], Any], repeats: int = STEPS, rounds: int = 3) -> float:
    """Of one call: the median of three rounds after a warm-up."""
    for _ in range(max(3, repeats // 6)):
        run()
    times = []
    for _ in range(rounds):
        wait()
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        wait()
        times.append((time.perf_counter() - start) / repeats)
    return median(times)


def machine() -> None:
    """The card's own limits, measured."""
    side = 8192 if CUDA else 512
    a, b = (torch.randn(side, side, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    rate = 2 * side**3 / seconds(lambda: a @ b, 10) / 1e12
    source = torch.empty(2**30 if CUDA else 2**26, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    speed = 2 * len(source) / seconds(lambda: target.copy_(source), 10) / 1e9
    name = torch.cuda.get_device_name() if CUDA else "CPU"
    print(f"{name}, torch {torch.__version__}: bf16 {rate:,.0f} TFLOP/s, copies {speed:,.0f} GB/s\n", flush=True)


def step_of(task: Any, batch: Any, how: str) -> Callable[[], Any]:
    """The network's own step on a fixed batch: `eager`, `compiled`, or `graphed`, recorded once and replayed."""
    network = task.network.get_submodule("encoder")
    run = torch.compile(network) if how == "compiled" else network
    head = torch.nn.Linear(network.num_features, 9).to(DEVICE)
    optimizer = torch.optim.AdamW([*network.parameters(), *head.parameters()], lr=1e-4, fused=CUDA, capturable=CUDA)
    target = torch.zeros(len(batch.image), dtype=torch.long, device=DEVICE)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16, cache_enabled=how != "graphed"):
            loss = torch.nn.functional.cross_entropy(head(run(batch.image)).float(), target)
        loss.backward()
        optimizer.step()

    if how != "graphed":
        return step
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


class Clock(pl.Callback):
    """Times the steps after the first ones."""

    def __init__(self, skip: int):
        self.skip, self.start, self.steps = skip, 0.0, 0

    def on_train_batch_end(self, *_: Any) -> None:
        """Start the clock once the skipped steps are done."""
        self.steps += 1
        if self.steps == self.skip:
            wait()
            self.start = time.perf_counter()

    def on_train_epoch_end(self, *_: Any) -> None:
        """Stop it."""
        wait()
        self.elapsed = (time.perf_counter() - self.start) / (self.steps - self.skip)


def measure(name: str, overrides: tuple[str, ...], path: str, folder: str) -> None:
    places = [f"paths.outputs={folder}", f"paths.run={folder}/run", "name=gpu", "tracking=none", "data=wm811k"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=[*places, f"data.path={path}", *overrides])
    data = build(cfg.data)
    data.open_and_split()
    task = build_task(cfg, resolved(cfg), data).to(DEVICE)
    data.setup()
    requests = [request for request, _ in zip(data.train_dataloader(), range(8), strict=False)]
    requests = [request._replace(position=request.position.to(DEVICE)) for request in requests]
    turn = iter(range(10**9))
    draw = seconds(lambda: data.draw(requests[next(turn) % len(requests)], task.streams[0]))
    batch = data.draw(requests[0], task.streams[0])
    images = len(batch.image)
    with FlopCounterMode(display=False) as counter:
        task.network.get_submodule("encoder")(batch.image[:2]).sum().backward()
    flops = counter.get_total_flops() / 2
    rates = {how: images / seconds(step_of(task, batch, how)) for how in WAYS}
    torch.compiler.reset()
    clock = Clock(10 if CUDA else 1)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    limits = {"max_epochs": 1, "limit_train_batches": STEPS + 10, "limit_val_batches": 0, "num_sanity_val_steps": 0}
    trainer = pl.Trainer(
        accelerator=DEVICE.type, devices=1, precision="bf16-mixed", callbacks=[clock], **quiet, **limits
    )
    trainer.fit(task, datamodule=data)
    own = [f"{rates[how]:,.0f}" if how in rates else "" for how in ("eager", "graphed", "compiled")]
    whole = images / clock.elapsed
    tera = whole * flops / 1e12
    cells = [name, *own, f"{images / draw:,.0f}", f"{whole:,.0f}", f"{whole / rates['eager']:.2f}", f"{tera:.1f}"]
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    warnings.filterwarnings("ignore")
    silence()
    register()
    torch.backends.cudnn.benchmark = True
    machine()
    heads = ["images/s: recipe", "network, eager", "CUDA graph", "compiled", "data path", "trainer, eager"]
    heads += ["trainer / network", "TFLOP/s in training"]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, overrides in RECIPES.items():
            if not sys.argv[2:] or any(word in name for word in sys.argv[2:]):
                measure(name, overrides, sys.argv[1], folder)


if __name__ == "__main__":
    main()
