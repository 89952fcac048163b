"""Where to compute, and in which precision."""

import torch

from wafer_lab.errors import UserError


def fastest_precision(accelerator: str) -> str:
    """What trains fastest: bf16-mixed where the hardware computes in bfloat16, else 32-true.

    A CPU without such instructions emulates them and takes ten times as long.
    """
    accelerator = kind_of_device(accelerator)
    if accelerator == "cpu":
        able = torch.cpu.get_capabilities()
        return "bf16-mixed" if any(able.get(name) for name in ("avx512_bf16", "amx_bf16")) else "32-true"
    if accelerator in ("gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "32-true"


def check_device(accelerator: str) -> None:
    """Refuse a GPU that is not there.

    Raises:
        UserError: PyTorch sees none.
    """
    if accelerator in ("gpu", "cuda") and not torch.accelerator.is_available():
        raise UserError(
            f"trainer.accelerator={accelerator}: PyTorch sees no GPU on this machine; use trainer=default, which takes "
            "one where it is, or trainer=cpu"
        )


def device_for(accelerator: str = "auto") -> torch.device:
    """Where networks run that no trainer places: the GPU where there is one, unless the accelerator says otherwise."""
    wanted = kind_of_device(accelerator) in ("gpu", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if wanted else "cpu")


def kind_of_device(accelerator: str) -> str:
    """What `auto` comes to on this machine: gpu or cpu; anything else as it is."""
    if accelerator != "auto":
        return accelerator
    return "gpu" if torch.accelerator.is_available() else "cpu"
