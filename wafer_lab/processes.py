"""The processes that train one model together: which one this is, and what its part of a batch is.

Launchers (torchrun, SLURM, Lightning's own) announce the rank in the environment, so it is known before torch is
imported.
"""

import os
from dataclasses import dataclass


def rank() -> int:
    """This process's rank among those that train together; 0 where it is alone."""
    return _number("RANK", "LOCAL_RANK", "SLURM_PROCID")


def local_rank() -> int:
    """Its rank among those on this machine."""
    return _number("LOCAL_RANK", "SLURM_LOCALID")


def launched() -> int:
    """How many processes a launcher (torchrun, srun) started; 0 where there was none."""
    started = "LOCAL_RANK" in os.environ or "SLURM_STEP_ID" in os.environ
    return _number("WORLD_SIZE", "SLURM_STEP_NUM_TASKS") if started else 0


def _number(*names: str) -> int:
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), 0)


@dataclass(frozen=True)
class Share:
    """A process's part of every batch: its places `rank`, `rank + of`, `rank + 2 * of`, ...

    Attributes:
        rank: Of the process, in 0 .. of - 1.
        of: Number of processes.
    """

    rank: int = 0
    of: int = 1

    @property
    def places(self) -> slice:
        """The places in a batch of all processes that are this one's."""
        return slice(self.rank, None, self.of)


#: All of it, for a process that is alone.
WHOLE = Share()
