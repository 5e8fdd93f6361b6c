"""`fanin pretrain`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from fanin.cli.numbers import Whole, check_range
from fanin.cli.paths import Place, check_folder
from fanin.errors import FaninError

Method = Literal["dbn", "autoencoder", "denoising"]


def pretrain(
    *,
    data: str = "auto",
    data_dir: Place | None = None,
    layers: str = "500,500,2000",
    method: Method = "dbn",
    visible: Literal["bernoulli", "gaussian"] = "bernoulli",
    binarize: Literal["none", "sample", "threshold"] = "none",
    negative: Literal["cd", "pcd", "fpcd", "pt"] = "cd",
    k: Whole = 1,
    centered: bool = True,
    lr: str | None = None,
    epochs: str | None = None,
    batch_size: Whole | None = None,
    seed: Whole = 0,
    ais: str | None = None,
    out: Place | None = None,
) -> int:
    """Train a stack of layers without labels, one after the other, and show what each has learnt.

    Every layer is kept when it is trained: the same command goes on where an earlier one was interrupted.

    Parameters
    ----------
    data
        auto (MNIST, or digits with a warning), mnist, digits, a file, a folder or module:attr (`fanin list datasets`).
    data_dir
        Where MNIST or a relative data file lies.
    layers
        Widths from the data up, such as 500,500,2000 or 512x3.
    method
        dbn: Boltzmann machines; autoencoder; denoising: autoencoders that repair masked inputs.
    visible
        What the data are: bernoulli for values from 0 to 1, gaussian for real ones.
    binarize
        Boltzmann machines on bits: sample draws each pixel anew with its value as probability, threshold cuts at 1/2.
    negative
        Where a machine's own statistics come from: cd, chains from the data; pcd, fpcd, pt, chains that persist.
    k
        Gibbs steps of these chains in each update.
    centered
        Centre the machines' gradients: better densities and samples. As the start of a classifier, not: --no-centered.
    lr
        The learning rate, or one for each layer: 0.05 or 0.05,0.01. By default 0.05, for autoencoders 0.1.
    epochs
        Epochs of each layer, or one number for each. By default what makes 3,000 updates, from 10 to 60.
    batch_size
        Rows in a mini-batch. By default a hundredth of all, from 10 to 100.
    seed
        Keys all random numbers.
    ais
        Bracket the first machine's log-likelihood: TEMPERATURESxCHAINS, such as 1000x100; 10000x100 for a quoted one.
    out
        The folder to write; by default runs/pretrain-METHOD-DATA.
    """
    settings = _settings(
        layers=layers,
        method=method,
        visible=visible,
        binarize=binarize,
        negative=negative,
        k=k,
        centered=centered,
        lr=lr,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
    )
    annealing = None if ais is None else _annealing(ais, method)
    check_folder("--out", out)
    from fanin.cli.progress import stderr
    from fanin.cli.run import load_data
    from fanin.cli.stack_folder import StackFolder

    console = stderr()
    dataset = load_data(data, data_dir, console)
    settings |= _sizes(settings, len(dataset.train))
    folder = out or Path("runs") / f"pretrain-{method}-{dataset.name}"
    work = StackFolder(folder, settings, dataset, data if data != "auto" else dataset.name, console)
    divergence = work.train()
    return work.finish(annealing, divergence)


def _settings(
    *,
    layers: str,
    method: Method,
    visible: str,
    binarize: str,
    negative: str,
    k: int,
    centered: bool,
    lr: str | None,
    epochs: str | None,
    batch_size: int | None,
    seed: int,
) -> dict[str, Any]:
    """What training depends on, checked, as plain data; RecipeError or FaninError names what is wrong.

    batch_size and epochs are None where they are the data's to say (`_sizes`).
    """
    widths = _widths(layers)
    check_range("--k", k, 1)
    check_range("--batch-size", batch_size, 1)
    if method != "dbn":
        for flag, given, default in (
            (f"--binarize {binarize}", binarize, "none"),
            (f"--negative {negative}", negative, "cd"),
            (f"--k {k}", k, 1),
            ("--no-centered", centered, True),
        ):
            if given != default:
                raise FaninError(f"{flag}: expected with --method dbn alone; got --method {method}")
    elif visible == "gaussian" and binarize != "none":
        raise FaninError(f"--binarize {binarize}: expected with --visible bernoulli; got --visible gaussian")
    rates = _each("lr", ("0.05" if method == "dbn" else "0.1") if lr is None else lr, float, len(widths))
    counts = None if epochs is None else _each("epochs", epochs, int, len(widths))
    common = {"method": method, "layers": widths, "visible": visible, "lr": rates, "epochs": counts}
    common |= {"batch_size": batch_size, "seed": seed}
    own = {"binarize": binarize, "negative": negative, "k": k, "centered": centered}
    return common | (own if method == "dbn" else {})


def _sizes(settings: dict[str, Any], rows: int) -> dict[str, Any]:
    """batch_size and epochs, where they are not given, so that layers have updates enough to learn by.

    A hundredth of the rows, from 10 to 100, makes a hundred updates an epoch or more, if there are a thousand rows; and
    as many epochs as come to 3,000 updates, but from 10 to 60. (digits, 1,437 rows: 30 epochs of 102 updates. With 10
    epochs of 14 updates, batches of 100, the codes of a third layer are the same for all rows.)
    """
    batch = settings["batch_size"] or min(rows, max(10, min(100, rows // 100)))
    usual = max(10, min(60, math.ceil(3000 / max(1, rows // batch))))
    return {"batch_size": batch, "epochs": settings["epochs"] or [usual] * len(settings["layers"])}


def _widths(text: str) -> list[int]:
    from fanin.recipe import parse_widths

    try:
        widths = list(parse_widths(text))
    except FaninError:
        widths = []
    if not widths or not all(1 <= width <= 1_000_000 for width in widths):
        raise FaninError(f"--layers: expected widths from the data up, such as 500,500,2000 or 512x3; got {text!r}")
    return widths


def _each(flag: str, text: str, kind: type[int] | type[float], layers: int) -> list[Any]:
    """A positive number for each layer, from one for all or one for each."""
    try:
        values = [kind(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(0 < value < math.inf for value in values):
        raise FaninError(f"--{flag}: expected a positive number, or one for each layer; got {text!r}")
    if len(values) not in (1, layers):
        raise FaninError(f"--{flag}: expected one number, or one for each of {layers} layers; got {len(values)}")
    return values * layers if len(values) == 1 else values


def _annealing(text: str, method: str) -> tuple[int, int]:
    if method != "dbn":
        raise FaninError(f"--ais: expected with --method dbn alone, for autoencoders have no likelihood; got {method}")
    temperatures, _, chains = text.partition("x")
    short = max(len(temperatures), len(chains)) < 10
    if not (short and temperatures.isdecimal() and chains.isdecimal() and int(temperatures) >= 1 and int(chains) >= 2):
        raise FaninError(f"--ais: expected TEMPERATURESxCHAINS, at least 1x2, such as 1000x100; got {text!r}")
    return int(temperatures), int(chains)
