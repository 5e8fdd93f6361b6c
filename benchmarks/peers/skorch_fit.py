"""skorch: NeuralNetClassifier on tensors in memory, without validation and printing."""

from __future__ import annotations

import torch
from skorch import NeuralNetClassifier
from torch.nn import CrossEntropyLoss

from peers.pytorch import network
from stopwatch import Done, Stopwatch
from way import BATCH, LR, WARM_UP, Way, in_memory


def epoch(way: Way, watch: Stopwatch) -> Done:
    """`partial_fit` for one epoch. Fetching each batch by one index instead was not measurably faster."""
    net = NeuralNetClassifier(
        network(),
        criterion=CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=LR,
        batch_size=BATCH,
        max_epochs=1,
        train_split=None,
        callbacks__print_log=None,
        verbose=0,
        iterator_train__shuffle=True,
        iterator_train__drop_last=True,
    )
    inputs, labels = in_memory()
    warm, rows = WARM_UP * BATCH, way.steps * BATCH
    net.partial_fit(inputs[:warm], labels[:warm])
    watch.start()
    net.partial_fit(inputs[:rows], labels[:rows])
    watch.stop()
    return Done(1, float(net.history[-1, "train_loss"]))
