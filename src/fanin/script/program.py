"""The source of a stand-alone PyTorch program: its docstring, its functions, its command line."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from importlib.metadata import version

from torch import nn

from fanin.choice import Choice
from fanin.initializers.draw import draws_bias
from fanin.recipe import Recipe, Trial
from fanin.script.layout import WIDTH, inert
from fanin.script.modules import is_deep, network_source, sizes_of
from fanin.script.origin import Origin
from fanin.script.start import needs_data
from fanin.script.training import has_schedule, schedule_source, training_source

_NAMED_CLASSES = 20  # a longer list hides the rest

_TRAINED = '''\
def trained() -> nn.Sequential:
    """The network with its trained weights, in evaluation mode."""
    net = network()
    net.load_state_dict(load_file(WEIGHTS))
    return net.eval()'''

_ACCURACY = '''\
@torch.no_grad()
def accuracy(net: nn.Sequential, inputs: Tensor, labels: Tensor) -> float:
    """The share of examples whose largest output is that of their class."""
    return (net(inputs).argmax(1) == labels).double().mean().item()'''

_READ = '''\
def read(path: Path, part: str) -> tuple[Tensor, Tensor]:
    """Scaled inputs (N, features) and class numbers (N,) of a part of an .npz file: "test" or "train"."""
    with np.load(path) as file:
        x, y = file[f"x_{part}"], file[f"y_{part}"]
    return torch.from_numpy(x.reshape(len(x), -1).astype(np.float32)) * SCALE, torch.from_numpy(y.astype(np.int64))'''

_MAIN = '''\
def main() -> None:
    """Print the accuracy on a test set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="an .npz file of stored values and class numbers from 0")
    net = trained()
    print(f"accuracy {accuracy(net, *read(parser.parse_args().data, 'test')):.4f}")'''

_MAIN_WITH_TRAINING = '''\
def main() -> None:
    """Print the accuracy on a test set, of the trained network or of one trained anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="an .npz file of stored values and class numbers from 0")
    parser.add_argument("--train", action="store_true", help="train anew first, from the trial's first weights")
    arguments = parser.parse_args()
    torch.manual_seed({seed})
    torch.set_flush_denormal(True)  # as in the trial: numbers too small to count would only cost time
    net = train(*read(arguments.data, "train")) if arguments.train else trained()
    print(f"accuracy {{accuracy(net, *read(arguments.data, 'test')):.4f}}")'''

_END = """\
if __name__ == "__main__":
    main()
"""


@dataclass(frozen=True)
class Subject:
    """What a program is about: a trial and its trained network, the data's name, fingerprint and scale.

    origin: its study and what it reached, where known. starts: whether its first weights are known.
    """

    trial: Trial
    network: nn.Sequential
    data: str
    fingerprint: str
    scale: float
    origin: Origin | None
    starts: bool


def program(subject: Subject, name: str) -> str:
    """The source of NAME.py, which reads NAME.safetensors and, where it trains, NAME.start.safetensors beside it."""
    recipe, network = subject.trial.recipe, subject.network
    parts = [f"{_docstring(subject, name)}\n\n{_imports(subject)}\n\n{_constants(subject)}"]
    parts += ["\n".join(network_source(network)), _TRAINED]
    if subject.starts and has_schedule(recipe):
        parts.append("\n".join(schedule_source(recipe)))
    if subject.starts:
        parts.append("\n".join(training_source(recipe, outputs=sizes_of(network)[-1])))
    main = _MAIN_WITH_TRAINING.format(seed=subject.trial.seed) if subject.starts else _MAIN
    return "\n\n\n".join([*parts, _ACCURACY, _READ, main, _END])


def _docstring(subject: Subject, name: str) -> str:
    rows = {"from": f"{_place(subject)}, seed {subject.trial.seed}"}
    if subject.origin is not None:
        rows["result"] = subject.origin.reached
    rows["data"] = f"{inert(subject.data)}, fingerprint {inert(subject.fingerprint)}{_classes(subject.origin)}"
    rows["written"] = f"by fanin {version('fanin')}"
    lines = [line for label, text in rows.items() for line in _row(label, text)]
    uses = [(f"python {inert(name)}.py data.npz", "accuracy on its arrays x_test, y_test")]
    if subject.starts:
        uses.append((f"{uses[0][0]} --train", "the same of a network trained anew on x_train, y_train"))
    longest = max(len(command) for command, _ in uses)
    lines += ["", *(f"{command:<{longest}}  # {what}" for command, what in uses)]
    if not subject.starts:
        how = _prepared(subject.trial.recipe)
        text = f"There is no train() here: the first weights were {how} on the trial's data, which were not at hand."
        lines += ["", *textwrap.wrap(text, WIDTH)]
    first = "A network that fanin trained, as plain PyTorch: torch, numpy and safetensors are all it needs."
    return "\n".join([f'"""{first}', "", *lines, '"""'])


def _row(label: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"{label:<9}", subsequent_indent=" " * 9)


def _place(subject: Subject) -> str:
    if subject.origin is None:
        return "a trial whose study was not at hand"
    return f"study {inert(subject.origin.study)}, arm '{inert(subject.origin.arm)}'"


def _classes(origin: Origin | None) -> str:
    """The classes' names, if they say more than their numbers."""
    names = origin.classes if origin is not None else ()
    if len(names) > _NAMED_CLASSES or all(name == str(i) for i, name in enumerate(names)):
        return ""
    return "; classes " + ", ".join(f"{i} {inert(name, longest=40)}" for i, name in enumerate(names))


def _imports(subject: Subject) -> str:
    recipe, trains = subject.trial.recipe, subject.starts
    cosine = trains and recipe.schedule.name == "cosine" and recipe.schedule["warmup"] < recipe.epochs
    lines = {
        "from __future__ import annotations\n": True,
        "import argparse": True,
        "import math": cosine,
        "from itertools import pairwise": is_deep(subject.network),
        "from pathlib import Path\n": True,
        "import numpy as np": True,
        "import torch": True,
        "from safetensors.torch import load_file": True,
        "from torch import Tensor, nn": True,
        "from torch.nn import functional as F": trains,
    }
    return "\n".join(line for line, wanted in lines.items() if wanted)


def _constants(subject: Subject) -> str:
    recipe = subject.trial.recipe
    lines = ['WEIGHTS = Path(__file__).with_suffix(".safetensors")']
    if subject.starts:
        comment = f"what training starts from, as seed {subject.trial.seed} drew it: {_drawn(recipe)}"
        if needs_data(recipe):
            comment += f"; then {_prepared(recipe)}"
        lines += textwrap.wrap(comment, WIDTH, initial_indent="# ", subsequent_indent="# ")
        lines.append('START = Path(__file__).with_suffix(".start.safetensors")')
    lines.append(f"SCALE = {_number(subject.scale)}  # the network sees stored values times this")
    if subject.starts:
        lines += [f"EPOCHS = {recipe.epochs}", f"BATCH_SIZE = {recipe.batch_size}"]
    return "\n".join(lines)


def _drawn(recipe: Recipe) -> str:
    weights = f"init {_words(recipe.init, 'init')}"
    return weights if draws_bias(recipe.init) else f"{weights}, bias_init {_words(recipe.bias_init, 'bias_init')}"


def _prepared(recipe: Recipe) -> str:
    """What was done to the drawn weights before training."""
    calibrated, pretrained = recipe.calibration, recipe.pretraining
    done = [f"calibrated by {_words(calibrated, 'calibration')}"] if calibrated.name != "none" else []
    done += [f"pre-trained by {_words(pretrained, 'pretraining')}"] if pretrained.name != "none" else []
    return " and ".join(done)


def _words(choice: Choice, table: str) -> str:
    """A choice with the options that are not at their default."""
    plain = choice.plain(table)
    if isinstance(plain, str):
        return plain
    options = ", ".join(f"{key} {value}" for key, value in plain.items() if key != "name")
    return f"{choice.name} ({options})"


def _number(scale: float) -> str:
    """1 / 255 where that is it, to the bit."""
    divisor = round(1 / scale) if scale > 1e-9 else 0
    return f"1 / {divisor}" if divisor > 1 and 1 / divisor == scale else repr(scale)
