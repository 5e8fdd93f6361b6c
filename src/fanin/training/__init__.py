"""Training any user's network by autograd: its data, loss and optimiser, one plain loop, and no trace afterwards."""

from __future__ import annotations

from fanin.training.batches import Batch as Batch
from fanin.training.batches import Batches as Batches
from fanin.training.copying import copy_of as copy_of
from fanin.training.copying import untouched as untouched
from fanin.training.loop import Curve as Curve
from fanin.training.loop import train as train
from fanin.training.losses import Loss as Loss
from fanin.training.losses import choose_loss as choose_loss
from fanin.training.optimizers import OptimizerSpec as OptimizerSpec
from fanin.training.setup import Training as Training
from fanin.training.setup import batches_for as batches_for
from fanin.training.wrappers import alone as alone
