"""Initialising a whole module: init_ for all of its parameters, initializer for torch's module.apply."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import torch
from torch import Tensor, nn

from fanin.initializers.module.decisions import Decisions, Scheme
from fanin.initializers.module.expression import Activation, recognise
from fanin.initializers.module.materialize import materialize, meta_tensors, unset
from fanin.initializers.module.plan import Wishes, not_seen, own_gain, plan
from fanin.initializers.module.residual import Residual, scale_branches
from fanin.initializers.module.setting import carry_out, rehearse
from fanin.initializers.module.slots import slots, slots_of
from fanin.initializers.module.trace import Inputs, Trace, run_trace, symbolic_trace

if TYPE_CHECKING:
    from fanin.choice import Choice

M = TypeVar("M", bound=nn.Module)


@overload
def init_(
    module: M,
    scheme: str | Choice | Scheme = ...,
    *,
    inputs: Inputs | None = ...,
    generator: torch.Generator | None = ...,
    bias: str | float | None = ...,
    gain: float | None = ...,
    activation: str | Callable[[Tensor], Tensor] | None = ...,
    residual: Residual | Mapping[str, Any] | None = ...,
    embedding_std: float | None = ...,
    forget_bias: float = ...,
    dry_run: Literal[False] = ...,
    device: torch.device | str | None = ...,
    **options: Any,
) -> M: ...


@overload
def init_(
    module: M,
    scheme: str | Choice | Scheme = ...,
    *,
    inputs: Inputs | None = ...,
    generator: torch.Generator | None = ...,
    bias: str | float | None = ...,
    gain: float | None = ...,
    activation: str | Callable[[Tensor], Tensor] | None = ...,
    residual: Residual | Mapping[str, Any] | None = ...,
    embedding_std: float | None = ...,
    forget_bias: float = ...,
    dry_run: Literal[True],
    device: torch.device | str | None = ...,
    **options: Any,
) -> Decisions: ...


def init_(
    module: nn.Module,
    scheme: str | Choice | Scheme = "kaiming_normal",
    *,
    inputs: Inputs | None = None,
    generator: torch.Generator | None = None,
    bias: str | float | Mapping[str, Any] | None = "zeros",
    gain: float | None = None,
    activation: str | Callable[[Tensor], Tensor] | None = None,
    residual: Residual | Mapping[str, Any] | None = None,
    embedding_std: float | None = None,
    forget_bias: float = 0.0,
    dry_run: bool = False,
    device: torch.device | str | None = None,
    **options: Any,
) -> nn.Module | Decisions:
    """Weights of std gain / sqrt(fan) in a whole module, in place, the gain by the activation that follows each layer.

    For any network whose signals should start at one scale: each layer gets its own fans and its own gain. Convolutions
    have fan_in = in / groups * taps and fan_out = out / groups * taps; transposed ones fan_in = in / groups * taps /
    stride, the number of terms in an output, where torch has out / groups * taps.

    scheme: a name of the catalogue ("kaiming_normal", "orthogonal", ...; he_* and glorot_* too) with its `options`, or
    a function (noise, shape, *, fan_in, fan_out) -> tensor. Returns the module; with dry_run the table of decisions,
    one row for each parameter, and then nothing is changed and no random number drawn. Of a grouped convolution the
    schemes that make a matrix as a whole, and functions, draw one for each group: (out / groups, in / groups, *kernel).

    What follows a layer is found by running `inputs` (a tensor, a tuple of positional or a dict of keyword arguments)
    once, or without them by torch.fx; `activation` overrides it for all layers. Kaiming's gain is the forward one with
    mode "fan_in", the backward one with "fan_out"; Xavier's is between them, LeCun's and orthogonal the forward one;
    before a matrix product, and at the end, it is 1. `gain` overrides it for all layers; other schemes have no such
    gain. Queries, keys, values and the gates of recurrent layers have gain 1, each drawn on its own. "critical" is also
    told of dropout right before a layer (reshapes may lie between).

    generator: where random numbers come from; torch's default one is then left as it is. bias: a scheme of
    catalogue.BIAS_INITIALIZERS, with options as {"name": "normal", "std": 0.2}, a number, or None to leave biases
    alone. embedding_std: embeddings are N(0, 1) unless it or a scheme without fans says otherwise; the row of
    padding_idx is zero. An embedding that shares its weight with a layer is set as that layer. forget_bias: added to
    the forget gates of LSTMs (Jozefowicz et al., 2015: 1).
    residual: which modules are residual branches, and how to scale them: a Residual, or its fields as a dict. device:
    where to put a module that is on the meta device.

    Left alone, and listed so: norms, frozen parameters (requires_grad False), parameters of modules that torch does not
    have. Parameters keep identity, dtype, device and strides; half types are drawn in float32.

    ValueError for a scheme, option or shape that does not fit, a lazy module, a meta tensor without `device`, a
    generator on another device; all values are then as they were, as they are if a function or a parametrisation
    raises. UserWarning if gains are wanted and what follows could not be seen: pass `inputs`.
    Gains: He et al. (2015), equations 10 and 14; Glorot and Bengio (2010), equation 12.
    """
    wishes = _wishes(
        scheme,
        options,
        bias=bias,
        gain=gain,
        activation=activation,
        embedding_std=embedding_std,
        forget_bias=forget_bias,
    )
    made = set() if dry_run else _with_memory(module, device, generator)
    found = list(slots(module))
    if made and (left := unset(module, made, {id(p) for s in found if s.role != "unknown" for p in s.sources()})):
        raise ValueError(
            f"{', '.join(left)}: on the meta device, and neither init_ nor a reset_parameters of their module has "
            "values for them; build the module on a real device"
        )
    trace = _trace(module, inputs) if dry_run or wishes.asks_activations or residual is not None else None
    steps = plan(found, wishes, trace)
    if wishes.asks_activations and trace is not None:
        _warn_of_unseen(trace, not_seen(steps))
    if residual is not None:
        told = Residual(**residual) if isinstance(residual, Mapping) else residual
        scale_branches(told, module, steps, trace.order if trace else ())
    rehearse(steps)
    if dry_run:
        return Decisions(step.row() for step in steps)
    carry_out(steps, generator)
    return module


def initializer(
    scheme: str | Choice | Scheme = "kaiming_normal",
    *,
    generator: torch.Generator | None = None,
    bias: str | float | Mapping[str, Any] | None = "zeros",
    gain: float | None = None,
    **options: Any,
) -> Callable[[nn.Module], None]:
    """A function for module.apply: sets the parameters of the one module it is called with, gain as the scheme's own.

    model.apply(fanin.initializer("xavier_normal")) sees no activations: Kaiming's gain is sqrt(2) for every layer,
    Xavier's 1, unless `gain` or other options say otherwise; the last layer too. For all else see init_, which sees the
    network as a whole. Tied parameters are set once for each module that has them; the last one counts.
    """
    wishes = _wishes(scheme, options, bias=bias, gain=gain, detects=False)

    def initialise(module: nn.Module) -> None:
        steps = plan(list(slots_of("", module)), wishes, None)
        rehearse(steps)
        carry_out(steps, generator)

    return initialise


def _wishes(
    scheme: str | Choice | Scheme,
    options: dict[str, Any],
    *,
    bias: str | float | Mapping[str, Any] | None,
    gain: float | None,
    activation: str | Callable[[Tensor], Tensor] | None = None,
    embedding_std: float | None = None,
    forget_bias: float = 0.0,
    detects: bool = True,
) -> Wishes:
    """What was asked for, validated; RecipeError is a ValueError that lists every problem."""
    chosen, own = _scheme(scheme, options, gain)
    if detects and gain is None and activation is None and options.get("negative_slope"):
        activation = nn.LeakyReLU(options["negative_slope"])  # torch's way to say what follows
        chosen, _ = _scheme(scheme, options | {"negative_slope": 0.0}, gain)
    if not detects and gain is None:
        gain = own_gain(chosen)
    wishes = Wishes(
        scheme=chosen,
        bias=_bias(bias),
        gain=gain,
        activation=None if activation is None else Activation(recognise(activation)),
        embedding_std=embedding_std,
        forget_bias=forget_bias,
        options=own,
    )
    if wishes.draws_bias and bias != "zeros":
        raise ValueError(f"bias: {scheme} draws the biases with the weights; leave bias out, got {bias!r}")
    return wishes


def _scheme(
    scheme: str | Choice | Scheme, options: dict[str, Any], gain: float | None
) -> tuple[Choice | Scheme, tuple[tuple[str, Any], ...]]:
    from fanin.choice import Choice, choose  # pydantic, only where it is wanted

    if isinstance(scheme, str | Choice):
        given = {} if gain is None else {"gain": gain}
        known = scheme.keywords() if isinstance(scheme, Choice) else {}
        name = scheme if isinstance(scheme, str) else scheme.name
        return choose("init", {"name": name} | known | options | given), ()
    if not callable(scheme):
        raise TypeError(f"scheme: expected a name or a function (noise, shape, *, fan_in, fan_out); got {scheme!r}")
    if gain is not None:
        raise ValueError("gain: a scheme of your own takes its gain itself; leave gain out, or pass it in the function")
    return scheme, tuple(options.items())


def _bias(bias: str | float | Mapping[str, Any] | None) -> Choice | None:
    from fanin.choice import choose

    if isinstance(bias, int | float) and not isinstance(bias, bool):
        return choose("bias_init", {"name": "constant", "value": float(bias)})
    return None if bias is None else choose("bias_init", bias)


def _with_memory(module: nn.Module, device: torch.device | str | None, generator: torch.Generator | None) -> set[int]:
    """Memory for what is on the meta device; the identities of the new tensors."""
    names = meta_tensors(module)
    if not names:
        return set()
    if device is None:
        some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise ValueError(f"{some}: on the meta device, where no memory is; pass device=, where to put the module")
    return materialize(module, device, generator=generator)


def _trace(module: nn.Module, inputs: Inputs | None) -> Trace:
    return symbolic_trace(module) if inputs is None else run_trace(module, inputs)


def _warn_of_unseen(trace: Trace, paths: list[str]) -> None:
    if not paths:
        return
    some = ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
    why = f"it cannot be traced without data ({trace.reason})" if trace.reason else "the forward pass skips it"
    warnings.warn(
        f"what follows {some} was not seen, so their gain is 1: {why}; pass inputs=, an example of what the module is "
        "called with, or activation=",
        UserWarning,
        stacklevel=3,
    )
