import subprocess
import sys
from pathlib import Path

from omegaconf import OmegaConf

from wafer_lab.config.build import build, resolved
from wafer_lab.tracking.tracker import NullTracker


def test_null_tracker_accepts_everything_and_keeps_nothing(tmp_path: Path) -> None:
    tracker = NullTracker()
    with tracker.run("a", {"b": 1}, {}) as run, tracker.run("c", {}, {}, nested=True) as child:
        run.log_metrics({"val/f1_macro": 0.5}, step=1)
        child.log_artifact(tmp_path)
        assert run.id is run.logger is None
        assert run.how_to_open() == ""
    assert list(tmp_path.iterdir()) == []


def test_null_tracker_imports_no_heavy_library() -> None:
    code = (
        "import sys; from wafer_lab.tracking.tracker import NullTracker\n"
        "import wafer_lab.tracking.mlflow_tracker\n"
        "print(sorted({'mlflow', 'lightning', 'torch', 'sqlalchemy', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_store_is_under_outputs_or_what_the_environment_says(monkeypatch, repository: Path) -> None:
    config = OmegaConf.create({"paths": {"outputs": "/data/my runs/outputs"}})
    config.tracking = OmegaConf.load(repository / "conf" / "tracking" / "mlflow.yaml")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert build(config.tracking).uri == "sqlite:////data/my runs/outputs/mlflow.db"
    assert config.tracking.artifacts == "/data/my runs/outputs/mlartifacts"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@tracking:5000")
    assert build(config.tracking).uri == "http://me:secret@tracking:5000"
    assert "secret" not in str(resolved(config)), "what is kept with every run and checkpoint"
    config.tracking.uri = "http://other:5000"
    assert build(config.tracking).uri == "http://other:5000"


def test_configs_build_trackers(tmp_path: Path, repository: Path) -> None:
    config = OmegaConf.create({"paths": {"outputs": str(tmp_path)}})
    for name, kind in (("mlflow", "MLflowTracker"), ("none", "NullTracker")):
        config.tracking = OmegaConf.load(repository / "conf" / "tracking" / f"{name}.yaml")
        assert type(build(config.tracking)).__name__ == kind
