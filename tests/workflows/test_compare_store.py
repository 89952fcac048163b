"""Where a comparison is recorded: in this checkout's store, whatever the runs say."""

from pathlib import Path

from hydra import compose, initialize_config_dir

from wafer_lab.config.build import build
from wafer_lab.workflows.compare import own_tracker

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_default_store_is_that_of_the_config(configured, monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("WAFER_LAB_OUTPUTS", raising=False)
    for moved in (False, True):
        if moved:
            monkeypatch.setenv("WAFER_LAB_OUTPUTS", str(tmp_path / "moved"))
        with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
            cfg = compose("train", overrides=["paths.run=x", "name=x"])
        assert vars(own_tracker("wafer_lab")) == vars(build(cfg.tracking))
