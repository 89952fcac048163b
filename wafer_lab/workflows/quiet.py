"""A console that holds what a person needs to read, and nothing else."""

import logging
import warnings

# Each is a remark about something wafer_lab does on purpose.
EXPECTED = (
    r".*does not have many workers.*",  # batches are drawn on the device; a loader only hands out positions
    r".*is smaller than the logging interval.*",  # losses are logged per epoch
    r".*Checkpoint directory .* exists and is not empty.*",  # a resumed run goes on in its folder
    r".*and your dataloader is not resumable.*",  # its sampler is: see wafer_lab.tasks.stopping
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",  # Lightning against newer torch
)


def silence() -> None:
    """Turn Lightning's advertisements off and leave out remarks about what is meant to be so."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for pattern in EXPECTED:
        warnings.filterwarnings("ignore", message=pattern)
