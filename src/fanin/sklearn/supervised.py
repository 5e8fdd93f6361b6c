"""Training a classifying module on labels: plain PyTorch, minibatches in keyed order, dropout by keyed masks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from fanin.pretraining.divergence import NotFiniteError
from fanin.streams import Stream

# Not fanin's engine: that trains recipes, whole stacks of them, on data sets that have names, for records in a store.
# Here is one module that exists already, a few lines of training, and a user who may go on with any torch optimiser.


def train_epochs(
    network: nn.Module, X: Tensor, y: Tensor, *, lr: float, weight_decay: float, batch: int, seed: int
) -> Iterator[float]:
    """Minimise the mean cross-entropy of softmax(network(X)) by Adam, in place; yields each epoch's mean loss.

    X (rows, features); y (rows,) class numbers; weight_decay is decoupled (torch.optim.AdamW). Rows come in the order
    of stream ("order", seed, epoch), all of them, so that the last batch may be smaller: labels may be few. Dropout is
    keyed by ("dropout", seed, epoch), and torch's generators are left as they were. NotFiniteError at a loss that is
    not finite: the network, like after whatever else breaks an epoch off, is then as before that epoch.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=weight_decay)
    epoch = 0
    while True:
        epoch += 1
        order = torch.from_numpy(Stream(seed, "order", epoch=epoch).permutation(len(X))).to(X.device)
        network.train()
        with _whole_or_not_at_all(network), _generators(seed, epoch, X.device):
            losses = []
            for step, index in enumerate(order.split(batch), 1):
                loss = nn.functional.cross_entropy(network(X[index]), y[index])
                losses.append(float(loss.detach()))
                if not math.isfinite(losses[-1]):
                    raise NotFiniteError(step, f"loss {losses[-1]}")
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        yield math.fsum(losses) / len(losses)


@contextmanager
def _whole_or_not_at_all(network: nn.Module) -> Iterator[None]:
    """Afterwards the network is in evaluation mode, and if anything broke off, with the parameters from before."""
    before = [p.detach().clone() for p in network.parameters()]
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for p, old in zip(network.parameters(), before, strict=True):
                p.copy_(old)
        raise
    finally:
        network.eval()


@contextmanager
def _generators(seed: int, epoch: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generator on this device by stream ("dropout", seed, epoch); afterwards it is as it was."""
    word = int(Stream(seed, "dropout", epoch=epoch).words(1)[0] >> np.uint64(1))
    on_card = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_card else []):
        if on_card:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(word)
        else:
            torch.random.default_generator.manual_seed(word)
        yield
