"""Deciding how each parameter of a module is set: by which scheme, which gain, and which are left alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from fanin.initializers.draw import Place, bias_variance
from fanin.initializers.module.decisions import Scheme, Step, as_choice
from fanin.initializers.module.expression import Activation, Direction, gain_of
from fanin.initializers.module.slots import Slot
from fanin.initializers.module.trace import Trace

if TYPE_CHECKING:
    from fanin.choice import Choice

# whose gain is that of the activation that follows; those that copy (identity, dirac) keep their own, 1
_DIRECTIONS: dict[str, Direction | None] = {
    "kaiming_uniform": None,  # as `mode` says
    "kaiming_normal": None,
    "xavier_uniform": "both",
    "xavier_normal": "both",
    "lecun_uniform": "forward",
    "lecun_normal": "forward",
    "orthogonal": "forward",
    "delta_orthogonal": "forward",
    "mup": "forward",
}
_BY_MODE: dict[str, Direction] = {"fan_in": "forward", "fan_out": "backward", "fan_avg": "both"}
_WITHOUT_FANS = frozenset({"zeros", "constant", "normal", "truncated_normal", "uniform"})  # for embeddings too


@dataclass(frozen=True)
class Wishes:
    """What init_ was asked for: all that is the same for every parameter."""

    scheme: Choice | Scheme
    bias: Choice | None
    gain: float | None = None
    activation: Activation | None = None
    embedding_std: float | None = None
    forget_bias: float = 0.0
    options: tuple[tuple[str, Any], ...] = ()  # of a scheme of the user's own

    @property
    def choice(self) -> Choice | None:
        """The catalogue's choice, None for a scheme of the user's own."""
        return as_choice(self.scheme)

    @property
    def asks_activations(self) -> bool:
        """Whether what follows a layer makes a difference to it."""
        if self.choice is None:
            return False
        followed = self.choice.name in _DIRECTIONS and self.gain is None and self.activation is None
        return followed or bool(_needs(self.choice) - {"keep", "bias_variance"})

    @property
    def draws_bias(self) -> bool:
        """Whether weights and biases are drawn as one matrix."""
        from fanin.initializers.draw import draws_bias

        return self.choice is not None and draws_bias(self.choice)


def _needs(choice: Choice) -> set[str]:
    from fanin.catalogue import INITIALIZERS

    return set(INITIALIZERS[choice.name].needs)


def plan(found: Sequence[Slot], wishes: Wishes, trace: Trace | None) -> list[Step]:
    """A step for every slot, in the order in which they are drawn."""
    owners = _owners(found)
    ends = _ends([s for s in found if s.role == "weight" and owners[id(s)] is s], trace)
    with torch.inference_mode(False):  # theory takes gradients, wherever init_ is called
        return [_step(slot, owners[id(slot)], wishes, trace, ends) for slot in found]


def _owners(found: Sequence[Slot]) -> dict[int, Slot]:
    """For each slot the one that sets its tensor: of tied ones a layer before an embedding, and the first of equals."""
    rank = {"weight": 0, "embedding": 1}
    owner: dict[int, Slot] = {}
    for slot in found:
        for source in slot.sources():
            known = owner.get(id(source))
            if known is None or rank.get(slot.role, 2) < rank.get(known.role, 2):
                owner[id(source)] = slot
    return {id(slot): owner[id(slot.sources()[0])] if slot.sources() else slot for slot in found}


def _ends(weights: Sequence[Slot], trace: Trace | None) -> tuple[Slot | None, Slot | None]:
    """The first and the last weight in order of execution, or of traversal where that is not known."""
    by_source = {id(p): slot for slot in weights for p in slot.sources()}
    order = [by_source[i] for i in (trace.order if trace else ()) if i in by_source] or list(weights)
    return (order[0], order[-1]) if order else (None, None)


def _step(slot: Slot, owner: Slot, wishes: Wishes, trace: Trace | None, ends: tuple[Slot | None, Slot | None]) -> Step:
    if owner is not slot:
        how = "set there as the weight of a layer" if slot.role == "embedding" else "set there"
        return Step(slot, notes=[f"tied to {owner.path}, {how}"])
    if why := _left(slot, wishes):
        return Step(slot, notes=[why])
    if slot.role == "bias":
        return _bias_step(slot, wishes)
    if slot.role == "weight":
        return _weight_step(slot, wishes, trace, ends)
    return _table_step(slot, wishes)


def _left(slot: Slot, wishes: Wishes) -> str:
    if slot.role in ("left", "unknown"):
        return slot.note
    if slot.tensor.numel() == 0:
        return "left alone: no elements"
    if not any(p.requires_grad for p in slot.sources()):
        return "left alone: frozen (requires_grad is False)"
    lacking = [type(p).__name__ for p in slot.parametrisations if not hasattr(p, "right_inverse")]
    if lacking:
        return f"left alone: parametrised by {lacking[0]}, which has no right_inverse"
    if not slot.tensor.is_floating_point():
        return f"left alone: {slot.tensor.dtype} is no real floating point"
    return "left alone: bias=None" if slot.role == "bias" and wishes.bias is None and not wishes.draws_bias else ""


def _bias_step(slot: Slot, wishes: Wishes) -> Step:
    from fanin.initializers.variance import weight_variance

    if wishes.draws_bias:
        return Step(slot, wishes.scheme, notes=["drawn with its weight"])
    assert wishes.bias is not None
    variance = weight_variance(wishes.bias, fan_in=slot.fan_in, fan_out=1, place=Place())
    step = Step(slot, wishes.bias, std=_root(variance))
    if slot.forget_rows is not None and wishes.forget_bias:
        step.forget = wishes.forget_bias
        step.notes.append(f"forget gate {wishes.forget_bias:+g}")
    return step


def _table_step(slot: Slot, wishes: Wishes) -> Step:
    """Embeddings N(0, 1), unless the scheme is one without fans; learnt keys and values N(0, 1 / width), as torch's."""
    from fanin.choice import choose
    from fanin.initializers.variance import weight_variance

    choice = wishes.choice
    if choice is not None and choice.name in _WITHOUT_FANS and (wishes.embedding_std is None or slot.role == "token"):
        variance = weight_variance(choice, fan_in=slot.fan_in, fan_out=slot.fan_out, place=Place())
        return Step(slot, choice, std=_root(variance))
    given = 1.0 if wishes.embedding_std is None else wishes.embedding_std
    std = given if slot.role == "embedding" else 1 / math.sqrt(slot.fan_in)
    note = "a table of rows: no fans" if slot.role == "embedding" else "keys or values beside those of the data"
    return Step(slot, choose("init", {"name": "normal", "std": std}), std=std, notes=[note])


def _weight_step(slot: Slot, wishes: Wishes, trace: Trace | None, ends: tuple[Slot | None, Slot | None]) -> Step:
    activation, how = _follows(slot, wishes, trace)
    step = Step(slot, wishes.scheme, activation=str(activation or ""), found=how)
    step.notes += [slot.note] if slot.note else []
    step.notes += [f"{step.groups} groups drawn separately"] if step.groups > 1 and not wishes.draws_bias else []
    step.options = wishes.options
    step.place = Place(first=slot is ends[0], last=slot is ends[1])
    if wishes.choice is None:
        return step
    follows = activation.function if activation is not None and activation.part == "whole" else None
    variance = 0.0 if wishes.bias is None or slot.bias is None else bias_variance(wishes.bias, slot.fan_in)
    step.place = replace(step.place, activation=follows, bias_variance=variance, keep=_kept(slot, trace))
    if step.place.keep < 1 and "keep" in _needs(wishes.choice):
        step.notes.append(f"dropout before it: keep {step.place.keep:g}")
    try:
        choice = _with_gain(wishes, activation)
        step.std = _root(_variance(choice, slot, step.place))
    except ValueError as error:
        raise ValueError(f"{slot.path}: {error}; or override it by an `activation` or `gain` for all layers") from None
    step.scheme, step.gain = choice, choice.keywords().get("gain")
    if choice.name == "orthogonal":
        _spread_by_stride(step)
    return step


def _spread_by_stride(step: Step) -> None:
    """Make up for the stride of a transposed convolution, of whose orthonormal filters an output reads a part."""
    slot, rows = step.slot, step.slot.shape[0] // step.slot.groups
    step.factor = math.sqrt(max(math.prod(slot.shape[1:]), rows) / max(slot.fan_in, rows))
    if step.factor != 1:
        step.notes.append(f"times {step.factor:.4g}: of a filter an output reads what the stride leaves")


def _follows(slot: Slot, wishes: Wishes, trace: Trace | None) -> tuple[Activation | None, str]:
    if not slot.followed:
        return None, ""
    if wishes.activation is not None:
        return wishes.activation, "given"
    if trace is None:
        return None, ""
    ids = [id(p) for p in slot.sources()]
    after = next((trace.after[i] for i in ids if i in trace.after), None)
    return after, trace.how if any(i in trace.seen for i in ids) else "not seen"


def _kept(slot: Slot, trace: Trace | None) -> float:
    """The share of the weight's inputs that dropout keeps."""
    kept = trace.kept if trace else {}
    return next((kept[id(p)] for p in slot.sources() if id(p) in kept), 1.0)


def _with_gain(wishes: Wishes, activation: Activation | None) -> Choice:
    """The scheme with the gain for what follows a layer."""
    from fanin.choice import choose

    choice, gain = wishes.choice, wishes.gain
    assert choice is not None
    options = choice.keywords()
    if gain is None:
        if choice.name not in _DIRECTIONS:
            return choice
        gain = gain_of(activation, _DIRECTIONS[choice.name] or _BY_MODE[options["mode"]])
    return choose("init", {"name": choice.name} | options | {"gain": gain})


def _variance(choice: Choice, slot: Slot, place: Place) -> float | None:
    from fanin.initializers.variance import weight_variance

    fans = {"fan_in": slot.fan_in, "fan_out": slot.fan_out}
    if choice.name == "orthogonal":  # a matrix for each group, whatever the stride: see _spread_by_stride
        fans = {"fan_in": math.prod(slot.shape[1:]), "fan_out": slot.shape[0] // slot.groups}
    return weight_variance(choice, **fans, place=place)


def _root(variance: float | None) -> float | None:
    return None if variance is None else math.sqrt(variance)


def not_seen(steps: Iterable[Step]) -> list[str]:
    """Paths of weights whose activation was looked for and not found, because they were not seen."""
    return [step.slot.path for step in steps if step.found == "not seen" and step.drawn]


def own_gain(scheme: Choice | Scheme) -> float | None:
    """The gain a choice has when nobody sees what follows: its own."""
    choice = as_choice(scheme)
    return None if choice is None else choice.keywords().get("gain")
