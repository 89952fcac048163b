import subprocess
from pathlib import Path

import numpy

from wafer_lab.evaluation.provenance import git_revision, provenance


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_revision_is_the_codes_and_says_when_it_was_changed(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    assert git_revision(package) == "unknown"
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "add", "-A")
    assert git_revision(package) == "unknown", "no commit yet"
    _git(tmp_path, "commit", "-q", "-m", "x")
    assert git_revision(package) == _git(tmp_path, "rev-parse", "HEAD")
    (package / "__init__.py").write_text("changed")
    assert git_revision(package).endswith("-dirty")


def test_code_installed_inside_another_repository_has_no_revision(tmp_path: Path) -> None:
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "commit", "-q", "--allow-empty", "-m", "x")
    installed = tmp_path / ".venv"
    installed.mkdir()
    (installed / "__init__.py").touch()
    assert git_revision(installed) == "unknown"


def test_provenance_names_command_machine_and_versions() -> None:
    facts = provenance()
    assert facts["versions"]["numpy"] == numpy.__version__
    assert "cores" in facts["hardware"]
    assert facts["command"].startswith("python")
    assert facts["started"].endswith("UTC")
