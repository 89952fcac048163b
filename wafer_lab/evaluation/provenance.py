"""Where a result comes from: the code, the command and the machine."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import wafer_lab

_PACKAGES = ("torch", "lightning", "torchmetrics", "numpy", "pyarrow", "hydra-core", "timm", "mlflow")
_UNKNOWN = "unknown"


def provenance() -> dict[str, Any]:
    """Facts for a run's report and tags, of this process and now.

    Returns:
        ``command``, ``started`` (UTC), ``git_revision``, ``hardware`` and ``versions`` (package -> version).
    """
    return {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "started": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "git_revision": git_revision(),
        "hardware": hardware(),
        "versions": versions(),
    }


def git_revision(package: Path = Path(wafer_lab.__file__).parent) -> str:
    """The commit the package's code is at, with ``-dirty`` after it where files differ from it.

    Args:
        package: folder of the code, in a Git checkout or not.

    Returns:
        40 hex digits, or "unknown" outside a checkout of this code, such as in an installed package.
    """
    # A package installed inside somebody's repository is not at that repository's revision.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return _UNKNOWN
    revision = _git(package, "rev-parse", "--verify", "HEAD")
    if revision is None:
        return _UNKNOWN
    changed = _git(package, "status", "--porcelain", "--untracked-files=no", ":/")
    return f"{revision}-dirty" if changed else revision


def hardware() -> str:
    """The processor, its usable cores, and the CUDA device if torch sees one."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [f"{_processor()} ({cores} cores)"]
    parts += [torch.cuda.get_device_name(device) for device in range(torch.cuda.device_count())]
    return ", ".join(parts)


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of the libraries that decide numbers, where installed."""
    found = {"python": platform.python_version(), "wafer_lab": wafer_lab.__version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
