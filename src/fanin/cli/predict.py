"""`fanin predict`."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fanin.cli.numbers import Whole
from fanin.cli.output import shown
from fanin.cli.paths import Place
from fanin.cli.trained import Trained, data_of, trained_network
from fanin.errors import FaninError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np


def predict(
    folder: Place,
    choice: str = "random",
    /,
    *,
    arm: str | None = None,
    study: str | None = None,
    seed: Whole | None = None,
    image: Place | None = None,
    index: Whole | None = None,
    data_dir: Place | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Show one picture, its label and what a trained network makes of it.

    Parameters
    ----------
    folder
        A folder that `fanin run` wrote.
    choice
        random: any picture of the test set, unless --image or --index is given.
    arm
        The arm whose network is asked; by default the first with weights.
    study
        The study of the arm, where several have an arm of that name.
    seed
        The seed, where weights of several were kept; by default the first.
    image
        A picture file; it is turned to grey and to the size of the training pictures.
    index
        A picture of the test set by its number, from 0.
    data_dir
        Where the data set lies, if it was found by --data-dir.
    json
        Print the answer, with every class's probability, as JSON on standard output, and nothing else there.
    """
    if choice != "random":
        raise FaninError(f"expected random, --index N or --image FILE; got {choice!r}")
    if image is not None and index is not None:
        raise FaninError("--image and --index: choose one")
    from fanin.engine.export import load_weights  # loads torch

    found = trained_network(folder, study, arm, seed)
    stored = found.stored
    network, metadata = load_weights(found.path)
    if image is not None:
        raw, notes = _picture(image, stored.data)
        source, label = "; ".join([str(image), *notes]), None
    else:
        dataset = data_of(stored, data_dir, otherwise="give a picture with --image FILE")
        index = _checked(index, len(dataset.test.labels))
        raw, label = dataset.test.inputs[index], dataset.classes[int(dataset.test.labels[index])]
        source = f"test picture {index} of {dataset.name}"
    chances = _chances(network, raw * float(metadata["scale"]), stored.data["classes"])
    with shown():
        if json:
            _print_json(found, source, index, label, chances)
            return 0
        print(source)
        _draw(raw, stored.data)
        _print_answer(chances, label)
        print(f"network: {stored.study.name}, arm {found.arm.name}, seed {found.seed}")
    return 0


def _checked(index: int | None, count: int) -> int:
    if index is None:
        return random.randrange(count)
    if not 0 <= index < count:
        raise FaninError(f"--index: expected 0 to {count - 1}; got {index}")
    return index


def _picture(path: Path, data: dict[str, Any]) -> tuple[np.ndarray, list[str]]:
    """A picture file as one row of stored values, and what was done to it."""
    import numpy as np
    from PIL import Image

    from fanin.datasets.pictures import read_grey

    shape = data.get("image_shape")
    if shape is None:
        raise FaninError(f"{path}: the network was trained on rows of {data['features']} numbers, not on pictures")
    height, width = shape
    notes = []
    grey = read_grey(path)
    if grey.shape != (height, width):
        notes.append(f"resized from {grey.shape[1]} x {grey.shape[0]} to {width} x {height}")
        how = Image.Resampling.BOX if grey.shape[1] > width else Image.Resampling.BICUBIC
        grey = np.asarray(Image.fromarray(grey).resize((width, height), how))
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if border.mean() > 127:
        notes.append("inverted, as its background is bright")
        grey = 255 - grey
    return (grey / (255 * data["scale"])).astype(np.float32).ravel(), notes


def _draw(row: np.ndarray, data: dict[str, Any]) -> None:
    from rich.console import Console

    from fanin.report.digit import print_digit

    if data.get("image_shape"):
        print_digit(row.reshape(data["image_shape"]), Console())


def _chances(network: Any, inputs: np.ndarray, classes: list[str]) -> dict[str, float]:
    """The probability of each class, the likeliest first."""
    import torch

    with torch.no_grad():
        logits = network(torch.from_numpy(inputs).float().unsqueeze(0))[0, : len(classes)]
        chances = torch.softmax(logits, 0)
    ranked = chances.sort(descending=True, stable=True)
    return {classes[int(i)]: float(p) for p, i in zip(ranked.values, ranked.indices, strict=True)}


def _print_answer(chances: dict[str, float], label: str | None) -> None:
    prediction = next(iter(chances))
    if label is not None:
        print(f"label       {label}")
    verdict = "" if label is None else "  right" if prediction == label else "  WRONG"
    print(f"prediction  {prediction}{verdict}")
    for name, chance in list(chances.items())[:3]:
        print(f"  {name:<10} {chance:7.2%}  {'█' * round(30 * chance)}")


def _print_json(found: Trained, source: str, index: int | None, label: str | None, chances: dict[str, float]) -> None:
    """Of a picture file index, label and right are null; so are probabilities that are no numbers, after divergence."""
    import json

    prediction = next(iter(chances))
    answer = {
        "study": found.stored.study.name,
        "arm": found.arm.name,
        "seed": found.seed,
        "input": source,
        "index": index,
        "label": label,
        "prediction": prediction,
        "right": None if label is None else prediction == label,
        "probabilities": {name: chance if math.isfinite(chance) else None for name, chance in chances.items()},
    }
    print(json.dumps(answer, indent=1, allow_nan=False))
