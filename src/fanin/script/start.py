"""The weights that a trial began with, as a plain network."""

from __future__ import annotations

import torch
from torch import nn

from fanin.datasets import Dataset
from fanin.engine.calibration import calibrate
from fanin.engine.data import Data
from fanin.engine.export import to_sequential
from fanin.engine.network import Network
from fanin.engine.pretraining import pretrain
from fanin.recipe import Recipe, Trial

_CPU = torch.device("cpu")


def needs_data(recipe: Recipe) -> bool:
    """Whether the data have a part in the first weights: by calibration, or by pre-training."""
    return recipe.calibration.name != "none" or recipe.pretraining.name != "none"


def start_of(trial: Trial, sizes: list[int], dataset: Dataset | None) -> nn.Sequential | None:
    """The network of these widths as the trial's seed drew it; None if that takes the data and they are not given.

    Drawn weights are the trial's to the bit; what calibration or pre-training makes of them is so on a machine and with
    a number of threads that compute alike.
    """
    if needs_data(trial.recipe) and dataset is None:
        return None
    network = Network(trial.recipe, sizes, 1, dtype=torch.float32, device=_CPU)
    network.initialize([trial])
    if needs_data(trial.recipe) and dataset is not None:
        data = Data.of(dataset, _CPU)
        calibrate(network, 0, trial, data)
        pretrain(network, 0, trial, data)
    return to_sequential(trial.recipe, network.state(0))
