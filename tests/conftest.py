"""Fixtures shared by every test."""

import importlib.util
import os
import warnings
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real samples: $WAFER_LAB_REAL_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("WAFER_LAB_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "wm811k_sample.npz").exists():
        pytest.skip(f"no real samples at {folder}; point WAFER_LAB_REAL_DATA at them")
    return folder


@pytest.fixture(autouse=True)
def _no_hydra_left():
    """Hydra keeps the last command line's config in a global; one test's must not reach another."""
    from hydra.core.hydra_config import HydraConfig

    HydraConfig.instance().cfg = None
    yield
    HydraConfig.instance().cfg = None


@pytest.fixture
def configured(tmp_path):
    """Compose the real config: configured("loss=focal", ...) -> DictConfig, with outputs in a temporary folder."""
    from hydra import compose, initialize_config_dir

    from wafer_lab.config.resolvers import register

    register()

    def composed(*overrides: str, run: str = "run"):
        places = [f"paths.outputs={tmp_path}", f"paths.run={tmp_path}/runs/{run}", f"name={run}", "tracking=none"]
        with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
            return compose("train", overrides=[*places, *overrides])

    return composed


@pytest.fixture(scope="session")
def stores(tmp_path_factory) -> Path:
    """A cache of prepared stores, shared by all tests of a session."""
    return tmp_path_factory.mktemp("stores")


@pytest.fixture
def tiny(configured, stores):
    """A run in seconds: tiny("loss=focal", ...) -> DictConfig over 400 simulated wafers."""

    def composed(*overrides: str, run: str = "run"):
        small = [
            "debug=smoke",
            "data.source.num_wafers=400",
            f"paths.cache={stores}",
            "model=wafer_cnn",
            "figures=false",
        ]
        return configured(*small, *overrides, run=run)

    return composed


@pytest.fixture(scope="session")
def lswmd_tool(real_data: Path) -> ModuleType:
    """The script that writes the real sample as LSWMD.pkl."""
    path = real_data.parent / "tools" / "make_lswmd.py"
    if not path.exists():
        pytest.skip(f"no {path} to write LSWMD.pkl with")
    spec = importlib.util.spec_from_file_location("make_lswmd", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tracked_runs(monkeypatch):
    """Read an MLflow database as a user would: tracked_runs(path) -> its runs of the experiment wafer_lab."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def read(database: Path) -> list:
        # MLflow's own use of SQLAlchemy is deprecated in places; a failed import of it would poison later tests.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mlflow import MlflowClient

            client = MlflowClient(f"sqlite:///{database}")
            return list(client.search_runs([client.get_experiment_by_name("wafer_lab").experiment_id]))

    return read
