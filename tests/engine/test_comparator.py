"""The comparison with the oracle can fail: each small, typical mistake in the engine is caught at 1e-9."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import oracle
import pytest
import torch
from torch import Tensor

from fanin.choice import choose
from fanin.engine import losses, passes, train
from fanin.engine.network import Affine, Gradients, Layer, Norm
from fanin.recipe import Recipe, Trial

TRIAL = Trial(Recipe(hidden=(5, 4), activation="tanh", normalization="batch", dropout=0.5, batch_size=8, epochs=2), 3)


def caught(trial: Trial = TRIAL, reference: Trial | None = None) -> None:
    data = oracle.problem()
    theirs = oracle.reference(reference or trial, data)
    with pytest.raises(AssertionError, match="relative differences"):
        oracle.agree(oracle.engine(trial, data), theirs)


def test_without_a_mistake_nothing_is_raised() -> None:
    data = oracle.problem()
    oracle.agree(oracle.engine(TRIAL, data), oracle.reference(TRIAL, data))


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_one_gradient_entry_off_by_a_millionth(layer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    backward = passes.Passes.backward

    def wrong(self: Any, layers: Sequence[Layer], gradients: Sequence[Gradients], *, dropout: bool) -> None:
        backward(self, layers, gradients, dropout=dropout)
        gradients[layer].weight[0, 1, 2] *= 1 + 1e-6

    monkeypatch.setattr(passes.Passes, "backward", wrong)
    # not Adam, which is blind to a constant factor of a gradient entry
    caught(Trial(replace(TRIAL.recipe, optimizer=choose("optimizer", {"name": "sgd", "lr": 0.1})), 3))


@pytest.mark.parametrize(
    "other",
    [
        {"name": "adam", "lr": 1.00001e-3},
        {"name": "adam", "betas": [0.9, 0.9991]},
        {"name": "adam", "eps": 1.1e-8},
        {"name": "adam", "weight_decay": 1e-6},
        {"name": "adam", "amsgrad": True},
        {"name": "adamw"},
        {"name": "adamax"},
    ],
    ids=str,
)
def test_another_optimizer_or_hyperparameter(other: dict[str, Any]) -> None:
    recipe = Recipe(**TRIAL.recipe.to_dict() | {"optimizer": other, "epochs": 4})
    caught(Trial(Recipe(**TRIAL.recipe.to_dict() | {"epochs": 4}), 3), Trial(recipe, 3))


def test_the_unbiased_factor_of_the_running_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = passes.Normalizer.forward

    def wrong(self: Any, z: Tensor, norm: Norm, *, update: bool, alive: Tensor | None) -> None:
        before = norm.running_var.clone()
        forward(self, z, norm, update=update, alive=alive)
        if update:
            moved = norm.running_var - 0.9 * before
            norm.running_var.copy_(0.9 * before + moved * 7 / 8)

    monkeypatch.setattr(passes.Normalizer, "forward", wrong)
    caught()


def test_batch_normalisation_that_forgets_the_means_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: Any, grad: Tensor, norm: Norm, gradient: Affine) -> None:
        torch.sum(grad, 1, keepdim=True, out=gradient.shift)
        torch.sum(grad * self.centred, 1, keepdim=True, out=gradient.scale)
        grad.mul_(self.inverse_std * norm.scale)

    monkeypatch.setattr(passes.Normalizer, "backward", wrong)
    caught()


@pytest.mark.parametrize("factor", [0.5, 1 + 1e-6])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_a_factor_in_the_losses_gradient(loss: str, factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(losses.LOSSES[loss]):
        def compute(self) -> None:
            super().compute()
            self.deltas.mul_(factor)

    monkeypatch.setitem(losses.LOSSES, loss, Wrong)
    recipe = replace(TRIAL.recipe, loss=loss, optimizer=choose("optimizer", "sgd"))
    caught(Trial(recipe, 3))


@pytest.mark.parametrize("mistake", ["unscaled", "next step's", "never"])
def test_dropout_masks(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = train.draw_masks

    def wrong(trials: Sequence[Trial], masks: Sequence[Tensor], epoch: int, step: int) -> None:
        right(trials, masks, epoch, step + (mistake == "next step's"))
        for mask in masks:
            if mistake == "unscaled":
                mask.clamp_(max=1)
            elif mistake == "never":
                mask.fill_(1)

    monkeypatch.setattr(train, "draw_masks", wrong)
    caught()


def test_another_order_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = train._batches

    def wrong(trials: Sequence[Trial], epoch: int, labels: Tensor, steps: int, batch: int) -> Tensor:
        return batches(trials, epoch + 1, labels, steps, batch)

    monkeypatch.setattr(train, "_batches", wrong)
    caught()


def test_numbers_that_are_not_finite_never_agree() -> None:
    data = oracle.problem()
    ours, theirs = oracle.engine(TRIAL, data), oracle.reference(TRIAL, data)
    ours.state["layers.1.weight"][0, 0] = float("nan")
    with pytest.raises(AssertionError, match=r"layers\.1\.weight"):
        oracle.agree(ours, theirs)
