"""What launchers announce, and what follows from it."""

import pytest

from wafer_lab.config.entry import user_errors
from wafer_lab.config.resolvers import run_folder
from wafer_lab.errors import UserError
from wafer_lab.processes import launched, local_rank, rank

TORCHRUN = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2"}
SRUN = {
    "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8", "SLURM_NTASKS": "8",
    "SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "2",
}  # fmt: skip
NAMES = {*TORCHRUN, *SRUN, "NODE_RANK", "GROUP_RANK"}


@pytest.fixture
def launcher(monkeypatch):
    def announce(environment):
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return announce


@pytest.mark.parametrize("environment", [TORCHRUN, SRUN])
def test_a_process_knows_its_place(launcher, environment, configured):
    launcher(environment)
    assert (rank(), local_rank(), launched()) == (5, 1, 8)
    trainer = configured("trainer=ddp_nodes").trainer
    assert (trainer.devices, trainer.num_nodes) == (4, 2)


def test_alone_without_a_launcher(launcher, configured):
    batch_script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_NNODES": "2"}  # in it, before any srun
    for environment in ({}, batch_script):
        launcher(environment)
        assert (rank(), local_rank(), launched()) == (0, 0, 0)
    launcher({})
    trainer = configured("trainer=ddp_nodes").trainer
    assert (trainer.devices, trainer.num_nodes) == ("auto", 1)


def test_the_first_process_alone_names_a_new_folder(launcher):
    launcher({})
    assert run_folder("out", "now", None) == "out/runs/now"
    launcher(TORCHRUN)
    assert run_folder("out", "now", None) == "out/runs"


def test_a_mistake_is_told_once_a_machine(launcher, capsys):
    for environment, times in (({}, 1), (TORCHRUN | {"LOCAL_RANK": "0"}, 1), (TORCHRUN, 0)):
        launcher(environment)
        with pytest.raises(SystemExit) as stop, user_errors():
            raise UserError("no such file")
        assert stop.value.code == 2
        assert capsys.readouterr().err.count("no such file") == times
