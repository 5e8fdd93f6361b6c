"""PyTorch Lightning: Trainer and DataLoader on tensors in memory, everything off that is not training."""

from __future__ import annotations

import logging
import warnings

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn import functional
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from peers.pytorch import network
from stopwatch import Done, Stopwatch
from way import BATCH, LR, WARM_UP, Way, in_memory

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")  # advice to start processes for loading: the data are in memory


def loader(way: Way, watch: Stopwatch) -> Done:
    """The DataLoader as everybody writes it: it fetches examples one by one and stacks them."""
    return _epoch(way, watch, DataLoader(TensorDataset(*in_memory()), batch_size=BATCH, shuffle=True, drop_last=True))


def indexed(way: Way, watch: Stopwatch) -> Done:
    """A batch by one index, as PyTorch's documentation has it for data sets that can do that."""
    data = TensorDataset(*in_memory())
    batches = BatchSampler(RandomSampler(data), BATCH, drop_last=True)
    return _epoch(way, watch, DataLoader(data, sampler=batches, batch_size=None))


class Classifier(LightningModule):
    """The network, and a stopwatch (None during the warm-up) around its epoch: the Trainer's start-up is not timed."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()
        self.watch: Stopwatch | None = None

    def training_step(self, batch: list[Tensor]) -> Tensor:
        inputs, labels = batch
        loss = functional.cross_entropy(self.network(inputs), labels)
        self.total += loss.detach()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=LR)

    def on_train_epoch_start(self) -> None:
        self.total = torch.zeros(())
        if self.watch:
            self.watch.start()

    def on_train_epoch_end(self) -> None:
        if self.watch:
            self.watch.stop()


def _epoch(way: Way, watch: Stopwatch, batches: DataLoader) -> Done:
    model = Classifier()
    _trainer(min(WARM_UP, way.steps)).fit(model, batches)
    model.watch = watch
    _trainer(way.steps).fit(model, batches)
    return Done(1, float(model.total) / way.steps)


def _trainer(steps: int) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        limit_train_batches=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
