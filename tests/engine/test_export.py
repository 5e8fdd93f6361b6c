"""A trained trial as plain PyTorch: the same outputs, the same file back, and a plain error for anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import oracle
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fanin.catalogue import ACTIVATIONS
from fanin.engine.export import load_weights, packed, to_sequential
from fanin.engine.train import train
from fanin.errors import StoreError
from fanin.recipe import Recipe, Trial

DATA = oracle.problem(examples=64, features=6, classes=3)


def trained(**fields: Any) -> tuple[Recipe, dict[str, Tensor]]:
    recipe = Recipe(**{"hidden": (5, 4), "batch_size": 16, "epochs": 1} | fields)
    return recipe, train([Trial(recipe, 1)], ["x"], DATA)[0].state


@pytest.mark.parametrize("fields", [{}, {"normalization": "batch"}, {"dropout": 0.3}, {"hidden": ()}], ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_round_trip(activation: str, fields: dict[str, Any], tmp_path: Path) -> None:
    recipe, state = trained(activation=activation, **fields)
    path = tmp_path / "trial.safetensors"
    path.write_bytes(packed(recipe, state, {"seed": "1"}))
    net, metadata = load_weights(path)
    plain = to_sequential(recipe, state)
    assert metadata["seed"] == "1"
    assert Recipe.from_dict(json.loads(metadata["recipe"])) == recipe
    assert net.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(t, plain.state_dict()[name]) for name, t in net.state_dict().items())
    assert torch.equal(net(DATA.test_inputs), plain(DATA.test_inputs))


def test_modules_mode_and_names() -> None:
    recipe, state = trained(
        normalization="batch", dropout=0.3, activation={"name": "leaky_relu", "negative_slope": 0.3}
    )
    net = to_sequential(recipe, state)
    block = [nn.Linear, nn.BatchNorm1d, nn.LeakyReLU, nn.Dropout]
    assert [type(m) for m in net] == [*block, *block, nn.Linear]
    assert not any(m.training for m in net.modules())
    assert net[2].negative_slope == 0.3
    assert net[3].p == 0.3
    assert (net[1].eps, net[1].momentum) == (1e-5, 0.1)
    assert all(p.requires_grad for p in net.parameters())
    for i, start in enumerate((0, 4, 8)):
        assert torch.equal(net[start].weight, state[f"layers.{i}.weight"])
        assert torch.equal(net[start].bias, state[f"layers.{i}.bias"])
    for theirs, ours in (("weight", "scale"), ("bias", "shift"), ("running_mean",) * 2, ("running_var",) * 2):
        assert torch.equal(getattr(net[5], theirs), state[f"layers.1.{ours}"])
    fresh = nn.Sequential(*(type(m)(*_arguments(m)) for m in net))
    fresh.load_state_dict(net.state_dict())  # strict: a plain network takes the weights
    assert torch.equal(fresh.eval()(DATA.test_inputs), net(DATA.test_inputs))


def _arguments(module: nn.Module) -> tuple[Any, ...]:
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, nn.BatchNorm1d):
        return (module.num_features,)
    return (0.3,)


def test_the_exported_network_can_go_on_training() -> None:
    recipe, state = trained(normalization="batch", dropout=0.3)
    net = to_sequential(recipe, state).train()
    oracle.loss_of(recipe, net(DATA.train_inputs), DATA.train_labels).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())


def test_more_than_ten_layers_keep_their_order() -> None:
    recipe, state = trained(hidden=tuple(range(3, 15)))
    assert [m.out_features for m in to_sequential(recipe, state) if isinstance(m, nn.Linear)] == [
        *range(3, 15),
        3,
    ]


@pytest.mark.parametrize("damage", ["empty", "truncated", "garbage", "header", "missing"])
def test_a_damaged_file(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "trial.safetensors"
    content = packed(*trained(), {})
    if damage != "missing":
        path.write_bytes(
            {
                "empty": b"",
                "truncated": content[:-5],
                "garbage": b"not weights" * 100,
                "header": content[:8] + b"x" + content[9:],
            }[damage]
        )
    with pytest.raises(StoreError, match=r"trial\.safetensors"):
        load_weights(path)


@pytest.mark.parametrize("recipe", [None, "not json", '{"hidden": "many"}', "[]", "{}"])
def test_a_file_that_is_not_fanins(recipe: str | None, tmp_path: Path) -> None:
    """Readable tensors, but no recipe, an unreadable one, or one that does not fit them."""
    path = tmp_path / "other.safetensors"
    save_file({"w": torch.zeros(2)}, path, None if recipe is None else {"recipe": recipe})
    with pytest.raises(StoreError, match=r"other\.safetensors"):
        load_weights(path)


def test_a_state_is_a_copy() -> None:
    _, state = trained()
    assert all(t._base is None for t in state.values())  # no view keeps the whole stack in memory
