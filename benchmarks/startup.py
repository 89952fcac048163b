"""How long it takes to answer, and to take the first step: python benchmarks/startup.py.

Every command runs in a process of its own, warm (the first round does not count). The first step is that of a run of
debug=smoke without tracking, from the command to the end of the first optimizer step, and what it is made of.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from statistics import median

from measuring import REPOSITORY, publish, table

ROUNDS = 5
# Without byte code from the round before, no process would be warm.
WARM = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
TOOL = "from wafer_lab.cli import main; main()"
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "python train.py --help": ["train.py", "--help"],
    "python train.py model=resnt18 (a config error)": ["train.py", "model=resnt18"],
    "python train.py loss.gama=2 loss=focal (a config error)": ["train.py", "loss=focal", "loss.gama=2"],
    "python sweep.py --help": ["sweep.py", "--help"],
    "wafer-lab --help": ["-c", TOOL, "--help"],
    "wafer-lab predict --help": ["-c", TOOL, "predict", "--help"],
}
FIRST = """
import runpy, sys, time
began = float(sys.argv.pop(1))
marks = [("interpreter", time.time())]
def mark(name): marks.append((name, time.time()))
from hydra import main as _
import wafer_lab.config.entry
mark("imports of hydra and the checks")
import wafer_lab.config.validate as validate
checked = validate.validate
def watched(cfg):
    mark("checking the command line, composing")
    checked(cfg)
    mark("checking the composed config")
validate.validate = watched
sys.argv[0] = "train.py"
def torch_ready():
    import torch
    mark("import of torch")
    import lightning.pytorch
    mark("import of Lightning")
    import wafer_lab.workflows.fit
    mark("imports of the workflow")
    import torch.optim
    step = torch.optim.AdamW.step
    from wafer_lab.data.datamodule import WaferDataModule
    setup, fit = WaferDataModule.setup, lightning.pytorch.Trainer.fit
    def set_up(self, stage=None):
        done = self._ready
        setup(self, stage)
        if not done: mark("opening and splitting the data")
    def fitted(self, *args, **kwargs):
        mark("building network, task and trainer")
        return fit(self, *args, **kwargs)
    def stepped(self, *args, **kwargs):
        value = step(self, *args, **kwargs)
        mark("from Trainer.fit to the end of the first step")
        for (_, before), (name, at) in zip([("", began), *marks], marks): print("MARK", name, at - before, sep="\\t")
        sys.stdout.flush()
        import os
        os._exit(0)
    WaferDataModule.setup, lightning.pytorch.Trainer.fit, torch.optim.AdamW.step = set_up, fitted, stepped
import wafer_lab.workflows as workflows
run = workflows.run
def running(cfg):
    torch_ready()
    return run(cfg)
workflows.run = running
runpy.run_path("train.py", run_name="__main__")
"""


def once(arguments: list[str]) -> tuple[float, float]:
    """Seconds of the clock and of the CPU that a command takes."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, env=WARM, capture_output=True, check=False)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def first_step(folder: str) -> dict[str, float]:
    """Seconds of every stage from the command to the end of the first step."""
    options = ["debug=smoke", "tracking=none", f"paths.outputs={folder}", f"hydra.run.dir={folder}/{time.time()}"]
    said = subprocess.run(
        [sys.executable, "-c", FIRST, str(time.time()), *options],
        cwd=REPOSITORY,
        env=WARM | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    marks = [line.split("\t") for line in said.stdout.splitlines() if line.startswith("MARK")]
    if not marks:
        raise SystemExit(said.stdout + said.stderr)
    return {name: float(seconds) for _, name, seconds in marks}


def main() -> None:
    rounds = [{name: once(arguments) for name, arguments in COMMANDS.items()} for _ in range(ROUNDS + 1)][1:]
    rows = []
    for name in COMMANDS:
        wall, own = (sorted(turn[name][kind] for turn in rounds) for kind in (0, 1))
        rows.append((f"`{name}`", f"{median(own):.2f}", f"{median(wall):.2f}", f"{wall[0]:.2f} to {wall[-1]:.2f}"))
    with tempfile.TemporaryDirectory() as folder:
        stages = [first_step(folder) for _ in range(ROUNDS + 1)][1:]
    steps = [(name, f"{median(turn[name] for turn in stages):.2f}") for name in stages[0]]
    steps.append(("from the command to the first step", f"{median(sum(turn.values()) for turn in stages):.2f}"))
    publish(
        "start-up",
        f"Medians of {ROUNDS} processes each, warm. Where nobody else is busy, the clock shows the CPU's seconds.",
        table(("command", "CPU, s", "clock, s", "spread"), rows),
        "The first optimizer step of `python train.py debug=smoke tracking=none`:",
        table(("stage", "clock, s"), steps),
    )


if __name__ == "__main__":
    main()
