"""`fanin prove`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fanin.errors import FaninError

if TYPE_CHECKING:
    from fanin.datasets import Dataset


def prove(
    model: str,
    remedies: Annotated[tuple[str, ...], Parameter(consume_multiple=True)],
    /,
    *,
    data: str = "auto",
    data_dir: Path | None = None,
    loss: str | None = None,
    optimizer: str | None = None,
    batch_size: int | None = None,
    seeds: int = 8,
    epochs: int | None = None,
    steps: int | None = None,
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
        are rows of numbers: a network of pictures begins with nn.Unflatten(1, (1, 28, 28)).
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
    from fanin.code import named
    from fanin.proof.prove import prove as proved  # `--help` stays fast
    from fanin.proof.remedies import remedy

    wanted = {text: remedy(text) for text in remedies}
    make = named(model, expected="a function that makes a network", lasting=True)
    train, held_out = examples(data, data_dir)
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


def examples(data: str, data_dir: Path | None) -> tuple[Any, Any]:
    """Training and evaluation data as rows, scaled as training scales them."""
    from fanin.cli.progress import stderr
    from fanin.cli.run import load_data

    dataset = load_data(data, data_dir, stderr())
    return _split(dataset, "train"), _split(dataset, "test")


def _split(dataset: Dataset, which: str) -> tuple[Any, Any]:
    import numpy as np

    part = getattr(dataset, which)
    return np.asarray(part.inputs, dtype=np.float32) * np.float32(dataset.scale), np.asarray(
        part.labels, dtype=np.int64
    )


def loss_of(text: str | None) -> Any:
    """A loss by its name or by package.module:function; None as it is."""
    from fanin.code import named
    from fanin.proof.remedies import LOSSES, unknown

    if text is None:
        return None
    if ":" in text:
        return named(text, expected="a loss", lasting=True)
    if text not in LOSSES:
        raise FaninError(unknown("--loss", text, LOSSES))
    return LOSSES[text]


def optimizer_of(text: str | None) -> Any:
    """An optimiser's factory by "sgd,lr=0.1" or by package.module:function; None as it is."""
    from functools import partial

    from fanin.code import named
    from fanin.proof.remedies import OPTIMIZERS, remedy, unknown

    if text is None:
        return None
    if ":" in text:
        return named(text, expected="a function of parameters that makes an optimiser", lasting=True)
    options = dict(remedy(f"optimizer={text}").options)
    name = str(options.pop("name", ""))
    if name.lower() not in OPTIMIZERS:
        raise FaninError(unknown("--optimizer", name, OPTIMIZERS))
    return partial(OPTIMIZERS[name.lower()], **options)
