"""The moving average of the weights against the recursion in a plain loop."""

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from wafer_lab.errors import UserError
from wafer_lab.tasks.averaging import EMA
from wafer_lab.workflows.quiet import silence


class Small(pl.LightningModule):
    """A network with statistics of its batches that notes its state after each step and at each validation."""

    def __init__(self):
        super().__init__()
        self.network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))
        self.trained, self.validated = [], []

    def state(self):
        return {name: value.clone() for name, value in self.network.state_dict().items()}

    def training_step(self, batch, _):
        return self.network(batch[0]).square().mean()

    def validation_step(self, batch, _):
        self.validated.append(self.state())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.3)

    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)
        self.trained.append(self.state())


def averaged(states, decay):
    """The averages after each step; the first is the first state, as torch's AveragedModel has it."""
    averages = [states[0]]
    for step, now in enumerate(states[1:], start=1):
        keep = min(decay, (1 + step) / (10 + step))
        averages.append(
            {
                name: keep * averages[-1][name] + (1 - keep) * value if value.is_floating_point() else value
                for name, value in now.items()
            }
        )
    return averages


@pytest.mark.parametrize("decay", [0.0, 0.4, 0.999])
def test_the_average_is_that_of_a_plain_loop(tmp_path, decay):
    silence()
    torch.manual_seed(0)
    data = DataLoader(TensorDataset(torch.randn(40, 4)), batch_size=5)
    module = Small()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=3,
        callbacks=[EMA(decay)],
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, data, DataLoader(TensorDataset(torch.zeros(1, 4))))
    expected = averaged(module.trained, decay)
    assert len(expected) == 24
    for found, wanted in [*zip(module.validated, expected[7::8], strict=True), (module.state(), expected[-1])]:
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value, msg=name)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_out_of_its_range_is_refused(decay):
    with pytest.raises(UserError, match="must lie in"):
        EMA(decay)
