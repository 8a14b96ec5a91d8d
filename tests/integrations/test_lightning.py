"""Mixtures inside Lightning's Trainer: training is the same, the numbers are logged, the files are those of merge."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import FSDPStrategy
from safetensors.torch import load_file
from torch import nn

from mergekit_wise.api.merge import merge
from mergekit_wise.errors import UsageError
from mergekit_wise.integrations.lightning import WiseFTCallback
from tests.integrations.networks import careless, images, network, same_bits


class Module(LightningModule):
    """A classifier around a network, beside which it has a layer of its own."""

    def __init__(self):
        super().__init__()
        self.model, self.other = network(), nn.Linear(2, 2)
        self.ends = []

    def training_step(self, batch, _):
        inputs, labels = batch
        return nn.functional.cross_entropy(self.model(inputs), labels)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.model.parameters(), lr=0.01)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*images()), batch_size=4, shuffle=True)

    def on_train_epoch_end(self):
        self.ends.append({name: value.clone() for name, value in self.model.state_dict().items()})


def fitted(folder, *callbacks, **arguments):
    """A module after two epochs of two optimizer steps, of two batches each, and its Trainer."""
    module = Module()
    settings = {"max_epochs": 2, "accumulate_grad_batches": 2, "logger": False, **arguments}
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **settings,
    )
    torch.manual_seed(7)
    trainer.fit(module)
    return module, trainer


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return fitted(tmp_path_factory.mktemp("plain"))[0]


def test_training_is_the_same_and_mixtures_are_those_of_merge(plain, tmp_path):
    """The network alone is mixed, under its own names; losses and files are those of the start and each epoch's end."""
    save = str(tmp_path / "epoch-{epoch}-{alpha}.safetensors")
    callback = WiseFTCallback(alphas=(0.4,), measure=careless, save=save, part="model")
    module, trainer = fitted(tmp_path, callback)
    assert same_bits(plain.state_dict(), module.state_dict())
    assert all(same_bits(first, second) for first, second in zip(plain.ends, module.ends, strict=True))
    inputs, labels = images(2)
    for epoch, end in enumerate(module.ends, 1):
        mixture = merge(network().state_dict(), end, alpha=0.4)
        assert same_bits(load_file(tmp_path / f"epoch-{epoch}-0.4.safetensors"), mixture)
        for alpha, state in ((0.4, mixture), (1.0, end)):
            other = network(3).eval()
            other.load_state_dict(state)
            with torch.no_grad():
                loss = nn.functional.cross_entropy(other(inputs), labels).item()
            record = {"epoch": epoch, "step": 2 * epoch, "alpha": alpha, "metric": "loss", "value": loss}
            assert record in callback.history
    assert len(callback.history) == 4
    assert trainer.callback_metrics["wise/alpha-0.4/loss"].item() == pytest.approx(callback.history[2]["value"])


def test_numbers_reach_the_loggers_after_so_many_steps(plain, tmp_path):
    """With every=3 there is one measurement, at the third of four optimizer steps, in the logger's file."""
    callback = WiseFTCallback(measure=careless, every=3, part="model")
    logger = CSVLogger(tmp_path)
    module, _ = fitted(tmp_path, callback, logger=logger)
    assert same_bits(plain.state_dict(), module.state_dict())
    assert [(record["step"], record["epoch"]) for record in callback.history] == [(3, 1.5)] * 2
    table = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()
    rows = [dict(zip(table[0].split(","), row.split(","), strict=True)) for row in table[1:]]
    (row,) = [row for row in rows if row["wise/alpha-0.5/loss"]]
    assert float(row["wise/alpha-0.5/loss"]) == pytest.approx(callback.history[0]["value"])


def test_sharded_weights_are_refused():
    """A strategy that shards the weights is refused by its name before the first step."""

    class Sharded:
        strategy = FSDPStrategy()
        global_step = 0

    with pytest.raises(UsageError, match="FSDPStrategy shards the weights"):
        WiseFTCallback(measure=careless).on_train_start(Sharded(), Module())
