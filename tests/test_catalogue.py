"""The catalogue: every name resolves, every default is torch.optim's own, spellings are canonical."""

from __future__ import annotations

import inspect

import pytest
import torch

from fanin import activations, initializers
from fanin.catalogue import ALIASES, BIAS_INITIALIZERS, INITIALIZERS, OPTIMIZERS, TABLES, canonical
from fanin.choice import choose
from fanin.engine import schedules
from fanin.engine.losses import LOSSES
from fanin.engine.optimizers import TORCH_CLASSES
from fanin.errors import RecipeError
from fanin.initializers import calibrate

# arguments of torch.optim that change how it computes, not what
_HOW = {"params", "foreach", "maximize", "capturable", "differentiable", "fused", "decoupled_weight_decay"}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_defaults_and_options_are_torchs(name: str) -> None:
    signature = inspect.signature(getattr(torch.optim, TORCH_CLASSES[name]))
    theirs = {k: p.default for k, p in signature.parameters.items() if k not in _HOW}
    ours = {option: default for option, (_, default) in OPTIMIZERS[name].options.items()}
    assert ours == theirs
    assert dict(choose("optimizer", name).options) == theirs


def test_every_name_resolves() -> None:
    assert set(TORCH_CLASSES) == set(OPTIMIZERS)
    assert set(LOSSES) == set(TABLES["loss"])
    rooms = {"activation": activations, "init": initializers, "bias_init": initializers, "calibration": calibrate}
    rooms["schedule"] = schedules
    for table, room in rooms.items():
        for name in TABLES[table]:
            assert callable(getattr(room, name))
    for table in ("activation", "init", "bias_init", "optimizer"):
        for name in TABLES[table]:
            assert choose(table, name).name == name


def test_biases_take_the_same_options() -> None:
    assert all(INITIALIZERS[name] is entry for name, entry in BIAS_INITIALIZERS.items())


@pytest.mark.parametrize("table", ALIASES)
def test_an_alias_leads_to_a_name_of_its_table(table: str) -> None:
    for alias, name in ALIASES[table].items():
        assert name in TABLES[table]
        assert alias not in TABLES[table]
        assert canonical(table, f" {alias.upper()} ") == name


def test_an_alias_holds_in_its_table_alone() -> None:
    assert canonical("activation", "none") == "identity"
    with pytest.raises(RecipeError, match="init: expected one of"):
        canonical("init", "none")


@pytest.mark.parametrize("table", TABLES)
def test_every_entry_says_what_it_is(table: str) -> None:
    summaries = [entry.summary for entry in TABLES[table].values()]
    assert all(summaries)
    assert len(set(summaries)) == len(summaries)


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean 'relu'"):
        canonical("activation", "rellu")
