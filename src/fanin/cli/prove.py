"""`fanin prove`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fanin.cli.numbers import Whole, check_range
from fanin.cli.optimizer import optimizer_by_name
from fanin.cli.paths import Place
from fanin.errors import FaninError

if TYPE_CHECKING:
    from pathlib import Path


def prove(
    model: str,
    remedies: Annotated[tuple[str, ...], Parameter(consume_multiple=True)],
    /,
    *,
    data: str = "auto",
    data_dir: Place | None = None,
    loss: str | None = None,
    optimizer: str | None = None,
    batch_size: Whole | None = None,
    seeds: Whole = 8,
    epochs: Whole | None = None,
    steps: Whole | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Train a network of yours with and without a remedy, from the same seeds, and say whether it helps.

    Parameters
    ----------
    model
        A function that makes the network, as package.module:function; it is imported from the current folder.
    remedies
        init=kaiming_normal, normalization, lr=0.001, input-scaling, target-scaling, loss=cross_entropy,
        output-activation=none, optimizer=sgd,lr=0.1, batch-size=64, train-mode, unfreeze; several are compared each
        with the network as it is.
    data
        auto, mnist, digits, a file, a folder or module:attr (`fanin list datasets`); evaluated on its test set. Inputs
        are rows of numbers, or pictures, (N, 1, height, width), where the network takes those and not rows.
    data_dir
        Where MNIST or a relative data file lies.
    loss
        A name such as cross_entropy, or package.module:function; by default what the targets call for.
    optimizer
        A name with options, such as sgd,lr=0.1, or package.module:function of the parameters; by default Adam.
    batch_size
        Examples in a batch, 32 by default.
    seeds
        Pairs of runs; 6 are the fewest that can claim anything.
    epochs
        How long to train, 5 by default.
    steps
        The same in steps.
    json
        Print everything as JSON on standard output, and nothing else there.
    """
    if epochs is not None and steps is not None:
        raise FaninError("--epochs and --steps: choose one")
    for flag, value in (("--batch-size", batch_size), ("--seeds", seeds), ("--epochs", epochs), ("--steps", steps)):
        check_range(flag, value, 1)
    from fanin.code import named
    from fanin.proof.prove import prove as proved  # `--help` stays fast
    from fanin.proof.remedies import remedy

    wanted = {text: remedy(text) for text in remedies}
    make = named(model, expected="a function that makes a network", lasting=True)
    train, held_out = _examples(make, model, data, data_dir)
    found = proved(
        make,
        wanted,
        train,
        loss_of(loss),
        optimizer=optimizer_of(optimizer),
        eval_data=held_out,
        batch_size=batch_size,
        seeds=seeds,
        epochs=epochs,
        steps=steps,
    )
    if json:
        from json import dump

        dump(found.to_dict(), sys.stdout, indent=1, allow_nan=False)
        print()
    else:
        print(found)
    return 0


def _examples(make: Any, spec: str, data: str, data_dir: Path | None) -> tuple[Any, Any]:
    """Training and evaluation data as the network takes them, scaled as training scales them."""
    from torch import nn

    from fanin.cli.code import made
    from fanin.cli.progress import stderr
    from fanin.cli.run import load_data
    from fanin.cli.training import arrays
    from fanin.training.setup import seeded

    console = stderr()
    network = make
    if not isinstance(make, nn.Module):
        network = seeded((lambda: made("MODEL", spec, make)) if callable(make) else make, 0)
    return arrays(load_data(data, data_dir, console), network, console)


def loss_of(text: str | None) -> Any:
    """A loss by its name or by package.module:function; None as it is."""
    from fanin.cli.training import LOSS_ALIASES
    from fanin.code import named
    from fanin.proof.remedies import LOSSES, unknown

    if text is None:
        return None
    if ":" in text:
        return named(text, expected="a loss", lasting=True)
    text = LOSS_ALIASES.get(text, text)
    if text not in LOSSES:
        raise FaninError(unknown("--loss", text, LOSSES))
    return LOSSES[text]


def optimizer_of(text: str | None) -> Any:
    """An optimiser's factory by "sgd,lr=0.1" or by package.module:function; None as it is."""
    from functools import partial

    from fanin.code import named

    if text is None:
        return None
    if ":" in text:
        return named(text, expected="a function of parameters that makes an optimiser", lasting=True)
    kind, options = optimizer_by_name(text)
    return partial(kind, **options)
