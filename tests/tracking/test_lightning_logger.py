"""Lightning's logger against the MLflow that is installed."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

pytestmark = [
    # Lightning's advice on loaders with few workers and on tiny epochs.
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    # Lightning 2.6 asks torch 2.15 in the old way.
    pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated:FutureWarning"),
]


class Tiny(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, index):
        loss = self.layer(batch[0]).square().mean()
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, index):
        self.log("val/f1_macro", torch.tensor(0.25 * (self.current_epoch + 1)))

    def test_step(self, batch, index):
        self.log_dict({"test/f1/Edge-Ring": torch.tensor(0.5), "test/f1/Center+Loc": torch.tensor(0.75)})

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _trainer(run, folder: Path) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=run.logger,
        log_every_n_steps=1,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def test_two_epochs_and_a_test_land_in_the_run(tracker, stored, store_uri, tmp_path: Path, capfd) -> None:
    data = DataLoader(TensorDataset(torch.ones(4, 2)), batch_size=4)
    with tracker.run("tiny", {"seed": 0}, {}) as run:
        trainer, model = _trainer(run, tmp_path), Tiny()
        trainer.fit(model, data, data)
        assert stored(run.id).info.status == "RUNNING", "the logger must not close the run after fit"
        trainer.test(model, data, verbose=False)
        assert (trainer.logger.version, trainer.logger.name) == (run.id, stored(run.id).info.experiment_id)
    found = stored(run.id)
    assert found.info.status == "FINISHED"
    metrics = found.data.metrics
    assert metrics["val/f1_macro"] == 0.5
    assert metrics["test/f1/Edge-Ring"] == 0.5
    assert metrics["test/f1/Center_Loc"] == 0.75
    assert metrics["train/loss"] > 0
    from mlflow.tracking import MlflowClient

    history = [m.value for m in MlflowClient(store_uri).get_metric_history(run.id, "val/f1_macro")]
    assert history == [0.25, 0.5]
    assert "mlflow" not in "".join(capfd.readouterr()).lower()


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "KILLED"), (RuntimeError, "FAILED")])
def test_a_crash_inside_fit_gives_the_run_its_status(tracker, stored, tmp_path, error, status) -> None:
    class Crash(Tiny):
        def training_step(self, batch, index):
            raise error

    data = DataLoader(TensorDataset(torch.ones(4, 2)), batch_size=4)
    with pytest.raises((SystemExit, RuntimeError)), tracker.run("crash", {}, {}) as run:
        _trainer(run, tmp_path).fit(Crash(), data, data)
    assert stored(run.id).info.status == status
