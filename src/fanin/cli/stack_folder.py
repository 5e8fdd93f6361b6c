"""The folder that `fanin pretrain` fills: training goes on from it, is kept in it, and is shown in it."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fanin.cli.paths import is_file
from fanin.errors import DataError, FaninError, StoreError

if TYPE_CHECKING:
    from rich.console import Console

    from fanin.datasets import Dataset
    from fanin.pretraining import DBN, StackedAutoencoder
    from fanin.profile import LikelihoodBracket, StackProfile
    from fanin.record import Divergence

STACK, HISTORY, REPORT = "stack.safetensors", "history.json", "report.html"
_KEPT_EVERY = 10.0  # seconds: a layer is kept whenever it ends, and amid its epochs so often


class StackFolder:
    """The folder of one command: what an earlier run left in it, what training adds, what is written at the end."""

    def __init__(self, folder: Path, settings: dict[str, Any], dataset: Dataset, spec: str, console: Console) -> None:
        import numpy as np
        import torch

        self._folder, self._settings, self._dataset, self._console = folder, settings, dataset, console
        self._notes = {
            "settings": settings,
            "data": {
                "spec": spec,
                "name": dataset.name,
                "fingerprint": dataset.fingerprint,
                "image_shape": dataset.image_shape and list(dataset.image_shape),
            },
        }
        self._train, self._held_out = (
            torch.from_numpy(part.inputs.astype(np.float32)) * dataset.scale for part in (dataset.train, dataset.test)
        )
        self._check_data(spec)
        self._history: list[dict[str, Any]] = []
        self._model = self._found() or new_stack(settings)
        self._likelihood = self._known_likelihood()

    def _check_data(self, spec: str) -> None:
        if self._settings["visible"] == "bernoulli":
            extremes = [float(x) for part in (self._train, self._held_out) for x in part.aminmax()]
            low, high = min(extremes), max(extremes)
            if low < 0 or high > 1:
                raise DataError(
                    f"--data {spec}: expected values from 0 to 1 with --visible bernoulli; got {low:g} to {high:g}: "
                    "rescale them, or take --visible gaussian"
                )
        if len(self._train) < self._settings["batch_size"]:
            raise DataError(
                f"--data {spec}: expected at least --batch-size {self._settings['batch_size']} training rows; got "
                f"{len(self._train)}"
            )

    def _found(self) -> DBN | StackedAutoencoder | None:
        """The stack of an earlier run of the same command; FaninError if it is another's."""
        path = self._folder / STACK
        if not is_file(path):
            return None
        from fanin.pretraining.saving import load_stack

        model, notes = load_stack(path)
        there = notes.get("settings", {}) | {"data": notes.get("data", {}).get("fingerprint")}
        here = self._settings | {"data": self._notes["data"]["fingerprint"]}
        differ = [key for key in here if there.get(key) != here[key]]
        if differ or not isinstance(model, type(new_stack(self._settings))):
            words = ", ".join(f"{key} {there.get(key)} there, {here[key]} here" for key in differ)
            raise StoreError(
                f"{path}: trained with other settings ({words}): choose another folder with --out, or remove this one"
            )
        self._history = notes["history"]
        return model

    def _known_likelihood(self) -> LikelihoodBracket | None:
        """What an earlier run found of the first layer's machine, if that was complete: it took its time."""
        from fanin.profile import LikelihoodBracket

        complete = sum(entry["layer"] == 1 for entry in self._history) == self._settings["epochs"][0]
        try:
            found = json.loads((self._folder / HISTORY).read_text())["likelihood"]
            return LikelihoodBracket(**found | {"sizes": tuple(found["sizes"])}) if complete and found else None
        except (OSError, ValueError, LookupError, TypeError):  # none is there, or another's: it can be had again
            return None

    def train(self) -> Divergence | None:
        """Train what is left, showing each epoch; where it diverged, or None. What is done outlives an interruption."""
        from fanin.pretraining.divergence import DivergedError
        from fanin.pretraining.layerwise import epochs
        from fanin.report.pretraining.table import heading, line

        counts, method = self._settings["epochs"], self._settings["method"]
        left = sum(counts) - len(self._history)
        self._say(self._plan(left))
        if not left:
            return None
        self._say(heading(method))
        kept = time.monotonic()
        try:
            for entry in epochs(self._model, self._train, self._held_out):
                self._history.append(entry)
                layer = entry["layer"]
                self._say(line(entry, method, layers=len(counts), epochs=counts[layer - 1]))
                if entry["epoch"] == counts[layer - 1] or time.monotonic() - kept > _KEPT_EVERY:
                    self._keep()
                    kept = time.monotonic()
        except DivergedError as error:
            self._keep()
            return error.where
        except KeyboardInterrupt:
            self._say(self._interrupted())
            raise
        except (ValueError, TypeError) as error:  # what the estimators know of parameters and data
            raise FaninError(f"--data {self._notes['data']['spec']}: {str(error).removeprefix('X: ')}") from None
        return None

    def _plan(self, left: int) -> str:
        from fanin.report.words import count

        if not left:
            return f"nothing to train: {self._folder / STACK} has all layers"
        done = f", {count(len(self._history), 'epoch')} kept from before" if self._history else ""
        return f"{count(left, 'epoch')} to train{done}"

    def _keep(self) -> None:
        """Write the stack as it is; nothing where no epoch has ended yet."""
        from fanin.pretraining.saving import save_stack

        if self._history:
            save_stack(self._folder / STACK, self._model, notes=self._notes | {"history": self._history})

    def _interrupted(self) -> str:
        from fanin.cli.run import _same_command

        path = self._folder / STACK
        kept = f"what {path} has is kept" if is_file(path) else "no layer was complete"
        return f"interrupted; {kept}. To go on:\n  {_same_command()}"

    def finish(self, annealing: tuple[int, int] | None, divergence: Divergence | None) -> int:
        """History, page and table; 1 if training diverged."""
        from rich.console import Console

        from fanin.datasets.atomic import make_folder, write
        from fanin.report.pretraining.page import write_pretraining
        from fanin.report.pretraining.table import print_profile

        profile = self._profile(annealing, divergence)
        make_folder(self._folder)
        write(self._folder / HISTORY, json.dumps(_plain(profile), indent=1, allow_nan=False).encode())
        page = write_pretraining(profile, self._folder / REPORT)
        print_profile(profile, Console())
        self._say(f"Page: {page}")
        return 1 if divergence else 0

    def _profile(self, annealing: tuple[int, int] | None, divergence: Divergence | None) -> StackProfile:
        import torch

        from fanin.engine.environment import environment
        from fanin.pretraining import DBN
        from fanin.pretraining.portrait import first_likelihood, pictures, pixel_errors
        from fanin.profile import StackProfile

        trained, seed = len({entry["layer"] for entry in self._history}), self._settings["seed"]
        shape, likelihood = self._dataset.image_shape, self._likelihood
        if annealing and trained and isinstance(self._model, DBN):
            self._say("annealing ...")
            likelihood = first_likelihood(
                self._model, self._train, self._held_out, temperatures=annealing[0], chains=annealing[1], seed=seed
            )
        known = environment(torch.device("cpu"), members=1)
        return StackProfile(
            method=self._settings["method"],
            data=self._dataset.name,
            widths=(self._dataset.features, *self._settings["layers"]),
            rows=len(self._train),
            held_out=len(self._held_out),
            settings=self._settings,
            history=tuple(self._history),
            environment=known | {"data fingerprint": self._dataset.fingerprint},
            pixel_errors=tuple(pixel_errors(self._model, self._held_out, trained)) if trained else (),
            divergence=divergence,
            likelihood=likelihood,
            pictures=pictures(self._model, self._held_out, shape, layers=trained, seed=seed)
            if shape and trained
            else None,
        )

    def _say(self, words: str) -> None:
        from fanin.report.pretraining.table import sayable

        self._console.print(sayable(words, self._console), markup=False, highlight=False, soft_wrap=True)


def new_stack(settings: dict[str, Any]) -> DBN | StackedAutoencoder:
    """The untrained stack of these settings."""
    from fanin.pretraining import DBN, StackedAutoencoder

    widths = tuple(settings["layers"])
    common = {name: settings[name] for name in ("lr", "epochs", "batch_size", "seed")}
    if settings["method"] == "dbn":
        binarize = None if settings["binarize"] == "none" else settings["binarize"]
        own = {name: settings[name] for name in ("visible", "k", "centered")}
        return DBN(widths, **common, **own, binarize=binarize, method=settings["negative"])
    output = "sigmoid" if settings["visible"] == "bernoulli" else "linear"
    corruption = "masking" if settings["method"] == "denoising" else "none"
    return StackedAutoencoder(widths, **common, output=output, corruption=corruption)


def _plain(profile: StackProfile) -> dict[str, Any]:
    """All of the profile but its pictures."""
    bare = {
        field.name: getattr(profile, field.name) for field in dataclasses.fields(profile) if field.name != "pictures"
    }
    return bare | {
        name: None if bare[name] is None else dataclasses.asdict(bare[name]) for name in ("divergence", "likelihood")
    }
