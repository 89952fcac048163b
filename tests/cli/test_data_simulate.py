"""wafer-lab data simulate."""

import pytest
from typer.testing import CliRunner

from wafer_lab.cli.app import app
from wafer_lab.data.simulator import Simulator
from wafer_lab.data.store import Store


@pytest.mark.parametrize(("patterns", "classes"), [("multiclass", 9), ("multilabel", 8)])
def test_a_store_of_simulated_wafers(tmp_path, patterns, classes):
    words = ["data", "simulate", str(tmp_path / "store"), "--wafers", "60", "--patterns", patterns, "--seed", "3"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert f"60 wafers, {classes} classes ({patterns})" in done.output
    store = Store.open(tmp_path / "store")
    rows = next(iter(Simulator(num_wafers=60, target=patterns, seed=3).rows()))
    assert (store.label == rows.label).all()
    assert (store.map(0).ravel() == rows.cells[: store.map(0).size]).all()
