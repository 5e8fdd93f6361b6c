"""The start of a user's network: weights by the recipe's init, drawn from the streams that the engine draws from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from fanin.catalogue import INITIALIZERS
from fanin.choice import Choice
from fanin.initializers.draw import initialize
from fanin.initializers.module.decisions import Step
from fanin.initializers.module.plan import Wishes, plan
from fanin.initializers.module.setting import carry_out, rehearse
from fanin.initializers.module.slots import slots
from fanin.initializers.module.trace import run_trace
from fanin.initializers.noise import Keyed
from fanin.recipe import Trial
from fanin.streams import Stream


def begin(network: nn.Module, trial: Trial, inputs: Tensor) -> None:
    """Set weights and biases by the trial's init and bias_init, in place; "default" leaves them as they were made.

    What is decided for each parameter (fans, gain by the activation that follows, tied and frozen ones) is what
    fanin.init_ decides; a gain or negative_slope that the recipe gives holds for all layers. The l-th weight, and its
    bias, are drawn from the streams ("weight", seed, l) and ("bias", seed, l), as the engine's l-th layer: of a
    multilayer perceptron they are the engine's own bits. Where a parameter consists of several matrices (gates,
    groups, parametrisations), these words seed a generator. ValueError for a scheme that a shape does not suit.
    """
    recipe = trial.recipe
    anew = recipe.init.name != "default"
    if not anew and recipe.bias_init.name == "default":
        return
    wishes = Wishes(scheme=recipe.init, bias=recipe.bias_init, gain=_given_gain(recipe.init))
    trace = run_trace(network, inputs) if anew and wishes.asks_activations else None
    steps = plan(list(slots(network)), wishes, trace)
    if not anew:
        steps = [step for step in steps if step.slot.role == "bias"]
    rehearse(steps)
    if anew and wishes.draws_bias:
        carry_out(steps, _generator(Stream(trial.seed, "weight"), steps))
        return
    for step, (purpose, place) in zip(steps, _places(network, steps), strict=True):
        if step.scheme is not None:
            _draw(step, Stream(trial.seed, purpose, layer=place))


def _given_gain(init: Choice) -> float | None:
    """The gain that the recipe itself gives; None if it is left to what follows each layer."""
    options, known = init.keywords(), INITIALIZERS[init.name].options
    changed = [key for key in ("gain", "negative_slope") if key in known and options[key] != known[key][1]]
    return options["gain"] if changed else None


def _places(network: nn.Module, steps: Sequence[Step]) -> Iterator[tuple[str, int]]:
    """Each step's stream: weights are counted through the network, a bias has the number of its weight."""
    weights = [slot for slot in slots(network) if slot.role == "weight"]
    of_weight = {(slot.module, slot.parameter): i for i, slot in enumerate(weights)}
    of_bias = {(slot.module, slot.bias): i for i, slot in enumerate(weights) if slot.bias}
    for other, step in enumerate(steps):
        at = step.slot.module, step.slot.parameter
        if at in of_weight:
            yield "weight", of_weight[at]
        elif at in of_bias:
            yield "bias", of_bias[at]
        else:
            yield "table", other


def _draw(step: Step, stream: Stream) -> None:
    slot, choice = step.slot, step.choice
    single = slot.parts == 1 and step.groups == 1 and slot.arrange is None and not slot.parametrised
    if choice is None or not single or slot.role not in ("weight", "bias"):
        carry_out([step], _generator(stream, [step]))
        return
    place = step.place if slot.role == "weight" else None
    values = initialize(choice, Keyed(stream), step.shape, fan_in=slot.fan_in, fan_out=slot.fan_out, place=place)
    with torch.no_grad():
        slot.tensor.copy_(values.reshape(slot.tensor.shape) * step.factor)


def _generator(stream: Stream, steps: Sequence[Step]) -> torch.Generator:
    """A generator where the parameters are, seeded by a word of the stream."""
    generator = torch.Generator(steps[0].slot.tensor.device if steps else "cpu")
    generator.manual_seed(int(stream.words(1)[0] >> 1))
    return generator
