"""`fanin sample`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fanin.cli.numbers import Whole, check_range
from fanin.cli.paths import Place, check_file, is_file, is_folder
from fanin.errors import FaninError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from fanin.pretraining.saving import Stack

_MOST = 10_000  # pictures: more fill no screen that anybody looks at


def sample(
    folder: Place,
    /,
    *,
    n: Whole = 25,
    steps: Whole = 1000,
    seed: Whole = 0,
    layer: Whole | None = None,
    out: Place | None = None,
    data_dir: Place | None = None,
) -> int:
    """Show what a trained stack dreams of: chains that run freely; of autoencoders what they make of held-out rows.

    Parameters
    ----------
    folder
        A folder that `fanin pretrain` wrote, or a file of fanin.pretraining.saving.save_stack.
    n
        How many pictures.
    steps
        Gibbs steps of each chain, from the means of the visible biases.
    seed
        Keys the chains; for autoencoders, the rows that are taken.
    layer
        Use the layers up to this one, from 1; by default all that are trained.
    out
        Also write the pictures as one PNG.
    data_dir
        Where the data set lies, for autoencoders, if it was found by --data-dir.
    """
    check_range("--n", n, 1, _MOST)
    check_range("--steps", steps, 1)
    check_file("--out", out, "samples.png")
    from fanin.cli.stack_folder import STACK

    path = folder / STACK if is_folder(folder) else folder
    if not is_file(path):
        raise FaninError(f"{path}: no trained stack here; `fanin pretrain --out {folder}` trains one")
    from fanin.pretraining.saving import load_stack  # loads torch

    model, notes = load_stack(path)
    depth = _depth(model, layer)
    found, rows, words = _shown(model, notes, depth, n=n, steps=steps, seed=seed, data_dir=data_dir)
    shape = _shape(notes, found.shape[1])
    print(words)
    _print([part.reshape(-1, *shape) for part in rows])
    if out is not None:
        _write(found.reshape(-1, *shape), out)
    return 0


def _depth(model: Stack, layer: int | None) -> int:
    """How many layers are used; FaninError where so many are not trained."""
    from fanin.pretraining import DBN, RBM, StackedAutoencoder

    match model:
        case RBM():
            trained = 1
        case DBN():
            trained = len(model.machines_)
        case StackedAutoencoder():
            trained = max(entry["layer"] or 0 for entry in model.history_)
    if layer is not None and not 1 <= layer <= trained:
        raise FaninError(f"--layer: expected 1 to {trained}, the layers that are trained; got {layer}")
    return layer or trained


def _shown(
    model: Stack, notes: dict[str, Any], depth: int, *, n: int, steps: int, seed: int, data_dir: Path | None
) -> tuple[np.ndarray, list[np.ndarray], str]:
    """All rows for the file, the parts in which the terminal shows them, and what they are."""
    import numpy as np

    from fanin.pretraining import RBM, StackedAutoencoder
    from fanin.pretraining.portrait import as_network, chains, lower_layers, reconstructions
    from fanin.report.words import count

    layers = count(depth, "layer")
    if isinstance(model, StackedAutoencoder):
        originals = _held_out(notes, n, seed, data_dir)
        found = reconstructions(model, originals, depth)[-1].numpy()
        words = f"{count(len(found), 'held-out row')}, and below what {layers} make of them"
        return np.concatenate([originals.numpy(), found]), [originals.numpy(), found], words
    try:
        network = lower_layers(as_network(model) if isinstance(model, RBM) else model, depth)
        ((_, drawn),) = chains(network, n, steps=(steps,), seed=seed)
    except ValueError as error:  # units that the way down has no module for
        raise FaninError(str(error)) from None
    words = f"{count(n, 'chain')} after {count(steps, 'step')}, {layers}, seed {seed}"
    return drawn.numpy(), [drawn.numpy()], words


def _held_out(notes: dict[str, Any], n: int, seed: int, data_dir: Path | None) -> Any:
    """Rows of the held-out part, drawn by the seed, in their own order."""
    import numpy as np
    import torch

    from fanin.cli.progress import stderr
    from fanin.cli.run import load_data
    from fanin.streams import Stream

    known = notes.get("data", {})
    if "spec" not in known:
        raise FaninError("an autoencoder wants rows to give back, and this file does not say of which data it is")
    dataset = load_data(known["spec"], data_dir, stderr(), allow_code=False)  # the file may be another's
    if dataset.fingerprint != known["fingerprint"]:
        raise FaninError(f"{known['spec']}: not the data that the stack was trained on any more")
    index = np.sort(Stream(seed, "shown").permutation(len(dataset.test))[:n])
    return torch.from_numpy(dataset.test.inputs[index].astype(np.float32)) * dataset.scale


def _shape(notes: dict[str, Any], features: int) -> tuple[int, int]:
    """Height and width of a picture; FaninError where rows are none."""
    import math

    shape = notes.get("data", {}).get("image_shape")
    if shape is None and math.isqrt(features) ** 2 == features and "data" not in notes:
        shape = (math.isqrt(features),) * 2  # saved from Python, without notes: square if it can be
    if shape is None:
        raise FaninError(f"expected a stack trained on pictures; got one of rows of {features} numbers")
    return tuple(shape)


def _print(parts: list[np.ndarray]) -> None:
    from rich.console import Console

    from fanin.report.pretraining.pictures import print_pictures

    console = Console()
    for part in parts:
        console.print()
        print_pictures(part, console)


def _write(pictures: np.ndarray, out: Path) -> None:
    """As square as may be, each pixel 4 x 4."""
    import math

    from fanin.cli.progress import stderr
    from fanin.datasets.atomic import make_folder, write
    from fanin.report.pretraining.pictures import grey_png

    make_folder(out.parent)
    write(out, grey_png(pictures, math.ceil(math.sqrt(len(pictures))), times=4))
    stderr().print(f"Pictures: {out}", markup=False, highlight=False, soft_wrap=True)
