"""`fanin propagate`."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fanin.cli.numbers import Whole, check_range
from fanin.cli.paths import Place, check_file
from fanin.errors import DataError, FaninError, RecipeError

if TYPE_CHECKING:
    from torch import Tensor

    from fanin.profile import Profile

MOST = 64  # settings: more fill no page that anybody reads
_MOST_UNITS, _MOST_SEEDS, _MOST_EXAMPLES = 1_000_000, 10_000, 100_000  # more is a slip, and no memory holds it


def propagate(
    *,
    hidden: str = "256x30",
    activation: str = "relu",
    init: str = "default",
    bias_init: str | None = None,
    normalization: str = "none",
    dropout: float = 0.0,
    features: Whole | None = None,
    outputs: Whole = 10,
    seeds: Whole = 6,
    examples: Whole = 256,
    data: str | None = None,
    data_dir: Place | None = None,
    out: Place | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """See what an initialisation does to signals and gradients before training, measured and predicted.

    Every combination of the activations, inits, bias inits and normalisations is one setting.

    Parameters
    ----------
    hidden
        Widths of the hidden layers, such as 256x30 or 512,256x3.
    activation
        Names with commas between; with options as in --set: '{name = "leaky_relu", negative_slope = 0.2}'.
    init
        Initialisers, likewise (`fanin list initializers`).
    bias_init
        Initialisers of the biases, likewise; by default zeros, or what the init draws itself.
    normalization
        none or batch, or both.
    dropout
        The probability of a zero after each hidden activation.
    features
        Inputs of the network, where they are normal ones; 784 by default.
    outputs
        Units of the last layer.
    seeds
        How many networks are drawn of each setting.
    examples
        How many inputs.
    data
        Inputs from a data set in place of normal ones: mnist, digits, a file (`fanin list datasets`).
    data_dir
        Where MNIST or a relative data file lies.
    out
        Also write everything, with charts, as one HTML page.
    json
        Print all numbers as JSON on standard output, and nothing else there.
    """
    settings = _settings(activation, init, bias_init, normalization)
    check_file("--out", out, "page.html")
    if features is not None and data is not None:
        raise FaninError("--features and --data: choose one; a data set has its own number of features")
    check_range("--features", features, 2, _MOST_UNITS)
    check_range("--outputs", outputs, 1, _MOST_UNITS)
    check_range("--seeds", seeds, 1, _MOST_SEEDS)
    check_range("--examples", examples, 8, _MOST_EXAMPLES)
    common = {"hidden": hidden, "outputs": outputs, "dropout": dropout, "seeds": seeds}
    _check(settings, common)
    if data is None:
        common |= {"features": features or 784, "examples": examples}
    else:
        common |= _inputs(data, data_dir, examples)
    return _shown([_profile(setting, common) for setting in settings], out, json)


def _settings(activation: str, init: str, bias_init: str | None, normalization: str) -> list[dict[str, Any]]:
    """Every combination, the last of them changing fastest."""
    from fanin.overrides import parse_assignment, parse_value  # `--help` stays fast

    for flag, text in (("activation", activation), ("init", init), ("bias-init", bias_init)):
        if text is not None and not text.strip():
            raise RecipeError(f"--{flag}: expected a name, or several with commas between; got {text!r}")
    given = {"activation": activation, "init": init, "bias_init": bias_init, "normalization": normalization}
    axes = [
        [(key, parse_value(value)) for value in parse_assignment(f"{key}={text}")[1]]
        for key, text in given.items()
        if text is not None
    ]
    found = [dict(point) for point in itertools.product(*axes)]
    if len(found) > MOST:
        raise RecipeError(f"expected at most {MOST} settings; got {len(found)} combinations: name fewer")
    return found


def _check(settings: list[dict[str, Any]], common: dict[str, Any]) -> None:
    """Every setting makes a recipe, before the first is measured and torch is loaded."""
    from fanin.recipe import Recipe

    fields = {key: common[key] for key in ("hidden", "outputs", "dropout")}
    for setting in settings:
        recipe = Recipe.from_dict(fields | setting)
        if not recipe.hidden:
            raise RecipeError("hidden: expected at least one hidden layer, such as 256x30; got none")


def _profile(setting: dict[str, Any], common: dict[str, Any]) -> Profile:
    from fanin.signal import propagate as measure_setting

    try:
        return measure_setting(**common, **setting)
    except FaninError:
        raise
    except ValueError as error:  # a scheme that cannot be drawn here, such as a critical one that does not exist
        words = ", ".join(f"{key}={value}" for key, value in setting.items())
        raise FaninError(f"{words}: {error}") from None


def _inputs(data: str, data_dir: Path | None, examples: int) -> dict[str, Any]:
    """Evenly spread training examples, scaled as training scales them."""
    import numpy as np
    import torch

    from fanin.cli.progress import stderr
    from fanin.cli.run import load_data

    dataset = load_data(data, data_dir, stderr())
    rows = np.asarray(dataset.train.inputs)
    if len(rows) < 8:
        raise DataError(f"--data {data}: expected at least 8 training examples; got {len(rows)}")
    index = np.arange(min(examples, len(rows))) * len(rows) // min(examples, len(rows))
    inputs: Tensor = torch.from_numpy(rows[index].astype(np.float64)) * dataset.scale
    return {"inputs": inputs, "inputs_name": dataset.name}


def _shown(profiles: list[Profile], out: Path | None, json: bool) -> int:
    from fanin.cli.progress import stderr
    from fanin.report.propagation.findings import findings

    found = findings(profiles)
    if json:
        from json import dump

        from fanin.report.propagation.export import to_json

        dump(to_json(profiles, found), sys.stdout, indent=1, allow_nan=False)
        print()
    else:
        from rich.console import Console

        from fanin.report.propagation.table import print_profiles

        print_profiles(profiles, found, Console())
    if out is not None:
        from fanin.report.propagation.page import write_propagation

        page = write_propagation(profiles, found, out)
        stderr().print(f"Page: {page}", markup=False, highlight=False, soft_wrap=True)
    return 0
