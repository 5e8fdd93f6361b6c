"""export_script: a stand-alone PyTorch program and its weights, written beside each other."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

from safetensors.torch import save
from torch import nn

from fanin.datasets import Dataset, atomic
from fanin.engine.export import load_weights
from fanin.engine.network import widths
from fanin.errors import DataError, StoreError
from fanin.recipe import Recipe, Trial
from fanin.script.modules import sizes_of
from fanin.script.origin import origin_of
from fanin.script.program import Subject, program
from fanin.script.start import needs_data, start_of

# a program of such a name would be imported in place of what it imports
_TAKEN = frozenset({"torch", "numpy", "safetensors", "fanin"}) | sys.stdlib_module_names


def export_script(
    weights: Path | str,
    out: Path | str,
    *,
    study: str | None = None,
    arm: str | None = None,
    dataset: Dataset | None = None,
    force: bool = False,
) -> list[Path]:
    """Write a trained trial as a program without fanin: OUT.py, OUT.safetensors, OUT.start.safetensors; their paths.

    weights: a file that `fanin run` kept. out: the program, NAME.py; the files beside it take its name. The program
    has `network()`, every module of the nn.Sequential spelled out; `trained()`, with the trial's weights; and
    `train(inputs, labels)`, one plain loop with the trial's optimiser, schedule, loss and batches, from the weights
    that its seed drew. It needs torch, numpy and safetensors.
    study, arm: which ones to name, of several in the study folder that share the trial. dataset: the trial's data;
    looked at only where its first weights come from them, by calibration or pre-training: without them the program
    then has no `train`. force: whether files that are there are replaced.
    StoreError where the weights cannot be read, belong to a network of the user's own, or `out` will not do; DataError
    for other data than the trial's.
    """
    weights, out = Path(weights), Path(out)
    network, metadata = load_weights(weights)
    trial, scale = _trial_of(weights, metadata)
    sizes = _checked_sizes(weights, trial.recipe, network)
    fingerprint = metadata.get("fingerprint", "unknown")
    _check_data(dataset, fingerprint, trial.recipe)
    origin = origin_of(weights, trial, metadata.get("trial", ""), fingerprint, study=study, arm=arm)
    paths = _checked_paths(weights, out, force=force, starts=dataset is not None or not needs_data(trial.recipe))
    start = start_of(trial, sizes, dataset)
    subject = Subject(trial, network, metadata.get("data", "unknown"), fingerprint, scale, origin, start is not None)
    source = program(subject, out.stem)
    atomic.make_folder(out.parent)
    contents = [source.encode(), *(_packed(net, trial) for net in (network, start) if net is not None)]
    for path, content in reversed(list(zip(paths, contents, strict=True))):  # the program last: it needs the others
        atomic.write(path, content)
    return paths


def _trial_of(weights: Path, metadata: dict[str, str]) -> tuple[Trial, float]:
    """The trial, and the factor on stored values, that a file's metadata tell."""
    try:
        trial = Trial(Recipe.from_dict(json.loads(metadata["recipe"])), int(metadata["seed"]))
        scale = float(metadata["scale"])
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale {scale}")
    except (KeyError, ValueError) as error:
        raise StoreError(
            f"{weights}: its metadata lack a seed and a scale that make sense ({error}); expected a file that "
            "`fanin run` kept"
        ) from None
    return trial, scale


def _checked_sizes(weights: Path, recipe: Recipe, network: nn.Sequential) -> list[int]:
    """The widths of the network, which must be the recipe's: a file may say one thing and hold another."""
    sizes = sizes_of(network)
    if sizes != widths(recipe, sizes[0], sizes[-1]):
        raise StoreError(f"{weights}: its recipe and its weights do not make a network (widths {sizes})")
    return sizes


def _check_data(dataset: Dataset | None, fingerprint: str, recipe: Recipe) -> None:
    if dataset is not None and needs_data(recipe) and dataset.fingerprint != fingerprint:
        raise DataError(
            f"{dataset.name}: its fingerprint is {dataset.fingerprint}; expected {fingerprint}, the data of the trial: "
            "give those, or none"
        )


def _checked_paths(weights: Path, out: Path, *, force: bool, starts: bool) -> list[Path]:
    """The files to write, the program first; StoreError if one of them must not be."""
    if out.suffix != ".py":
        raise StoreError(f"{out}: expected a file name that ends in .py")
    if out.stem in _TAKEN:
        raise StoreError(f"{out}: a program of that name hides the module {out.stem}; choose another name")
    paths = [out, out.with_suffix(".safetensors"), *([out.with_suffix(".start.safetensors")] if starts else [])]
    there = [path for path in paths if path.exists()]
    if any(path.samefile(weights) for path in there):
        raise StoreError(f"{out}: its weights would take the place of {weights}; choose another name or folder")
    if there and not force:
        names = ", ".join(map(str, there))
        raise StoreError(f"{names}: there already; choose another name, or replace with --force (force=True)")
    if folders := [path for path in there if path.is_dir()]:
        raise StoreError(f"{folders[0]}: is a folder; choose another name")
    return paths


def _packed(network: nn.Sequential, trial: Trial) -> bytes:
    """A state_dict as safetensors, with PyTorch's mark."""
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    return save(state, {"format": "pt", "seed": str(trial.seed)})
