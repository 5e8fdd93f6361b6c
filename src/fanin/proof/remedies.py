"""Remedies: what each kind of fanin.Remedy changes of a Training, and remedies from text such as "lr=0.001"."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fanin.errors import FaninError, nearest
from fanin.finding import REMEDIES, Remedy
from fanin.initializers.module import init_
from fanin.proof.scaling import scale_inputs, scale_targets
from fanin.proof.surgery import normalize, set_output_activation
from fanin.training import OptimizerSpec, Training
from fanin.training.losses import main_output, name_of

Change = Callable[[Training], Training]

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": nn.functional.cross_entropy,
    "nll": nn.functional.nll_loss,
    "bce_with_logits": lambda z, y: nn.functional.binary_cross_entropy_with_logits(z, y.to(z).view_as(z)),
    "bce": lambda z, y: nn.functional.binary_cross_entropy(z, y.to(z).view_as(z)),
    "mse": lambda z, y: nn.functional.mse_loss(z, y.to(z).view_as(z)),
    "l1": lambda z, y: nn.functional.l1_loss(z, y.to(z).view_as(z)),
    "huber": lambda z, y: nn.functional.huber_loss(z, y.to(z).view_as(z)),
}

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    kind.__name__.lower(): kind
    for kind in (
        *(torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adamax, torch.optim.NAdam),
        *(torch.optim.RAdam, torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.Adadelta, torch.optim.LBFGS),
    )
}


def draw(training: Training, scheme: str = "kaiming_normal", **options: Any) -> Training:
    """All weights anew by fanin.init_(model, scheme, **options), gains from the first batch's forward pass."""
    batch = next(training.stream(0))
    inputs = dict(batch.named) or batch.inputs

    def make() -> nn.Module:
        return init_(training.make(), scheme, inputs=inputs, **options)

    return training.changed(make=make)


def set_lr(training: Training, lr: float | None = None, *, factor: float | None = None) -> Training:
    """Another learning rate, in all groups of the optimiser, or each group's times a factor."""
    given = lr if factor is None else factor
    if (lr is None) == (factor is None) or isinstance(given, bool) or not isinstance(given, int | float) or given <= 0:
        raise FaninError(
            f"remedy lr: expected a positive number, such as lr=0.001, or a factor; got lr={lr!r}, factor={factor!r}"
        )
    spec = training.optimizer
    return training.changed(optimizer=spec.with_options(lr=float(given)) if factor is None else spec.scaled(given))


def set_loss(training: Training, name: Any) -> Training:
    """Another loss: a name of LOSSES, or a callable(outputs, targets)."""
    if callable(name):
        return training.changed(loss=name, loss_words=name_of(name))
    if name not in LOSSES:
        raise FaninError(unknown("remedy loss", name, LOSSES))
    return training.changed(loss=_of_main_output(LOSSES[name]), loss_words=name)


def set_optimizer(training: Training, name: Any = None, **options: Any) -> Training:
    """Another optimiser: a name of OPTIMIZERS, a class, or a function of the parameters; without one other options."""
    if name is None:
        return training.changed(optimizer=training.optimizer.with_options(**options))
    kind = OPTIMIZERS.get(name.lower()) if isinstance(name, str) else name
    if kind is None:
        raise FaninError(unknown("remedy optimizer", name, OPTIMIZERS))
    if isinstance(kind, torch.optim.Optimizer) or not callable(kind):
        raise FaninError(
            "remedy optimizer: expected a name such as 'adam', a class of torch.optim or a function of the parameters; "
            f"got {type(kind).__name__}, which holds the parameters of one network"
        )
    words = ", ".join(f"{key}={value}" for key, value in options.items())
    called = getattr(kind, "__name__", type(kind).__name__)
    spec = OptimizerSpec(f"{called}({words})" if words else called, factory=partial(kind, **options))
    return training.changed(optimizer=spec)


def set_batch_size(training: Training, size: int) -> Training:
    """Another batch size; of a run of so many epochs the number of steps changes with it."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise FaninError(f"remedy batch-size: expected a number of examples, such as 32; got {size!r}")
    return training.changed(batches=training.batches.with_batch_size(size))


def set_train_mode(training: Training) -> Training:
    """model.train() before training."""
    return training.changed(make=lambda: training.make().train())


def unfreeze(training: Training) -> Training:
    """requires_grad_() for every parameter, and every parameter in a group of the optimiser."""

    def make() -> nn.Module:
        return training.make().requires_grad_()

    spec, names = training.optimizer, [name for name, _ in training.new(0).named_parameters()]
    if spec.groups:
        known = {name for _, held in spec.groups for name in held}
        (options, held), *rest = spec.groups
        added = (*held, *(name for name in names if name not in known))
        spec = replace(spec, groups=((options, added), *rest))
    return training.changed(make=make, optimizer=spec)


# The functions behind the kinds of fanin.finding.REMEDIES; the second parameter is what text sets after "=".
APPLY: dict[str, Callable[..., Training]] = {
    "init": draw,
    "normalization": normalize,
    "lr": set_lr,
    "input-scaling": scale_inputs,
    "target-scaling": scale_targets,
    "loss": set_loss,
    "output-activation": set_output_activation,
    "optimizer": set_optimizer,
    "batch-size": set_batch_size,
    "train-mode": set_train_mode,
    "unfreeze": unfreeze,
}


def apply(remedy: Remedy, training: Training) -> Training:
    """The training with the remedy applied; FaninError where it does not apply, with the reason."""
    if remedy.kind not in APPLY:
        raise FaninError(unknown("remedy", remedy.kind, APPLY))
    function = APPLY[remedy.kind]
    try:
        inspect.signature(function).bind(training, **remedy.options)
    except TypeError as error:
        raise FaninError(f"remedy {remedy.kind}: {error}; got the options {dict(remedy.options)}") from None
    try:
        found = function(training, **remedy.options)
        found.optimizer.build(found.new(0))  # what cannot be done is said before anything is trained
    except FaninError:
        raise
    except (ValueError, TypeError) as error:  # a scheme, an option
        raise FaninError(f"remedy {remedy.code}: {error}") from error
    return found


def remedy(text: str) -> Remedy:
    """A remedy from text: KIND, KIND=VALUE or KIND=VALUE,OPTION=VALUE; FaninError with the nearest spelling.

    "input-scaling", "lr=0.001", "init=kaiming_normal", "optimizer=sgd,lr=0.1,momentum=0.9".
    """
    kind, _, rest = text.partition("=")
    kind = kind.strip().replace("_", "-")
    if kind not in APPLY:
        raise FaninError(unknown("remedy", kind, APPLY))
    first, *more = rest.split(",") if rest else ("",)
    options: dict[str, Any] = {}
    if first:
        options[_main_option(kind, text)] = _value(first)
    for part in more:
        key, equals, value = part.partition("=")
        if not equals:
            raise FaninError(f"remedy {text}: expected OPTION=VALUE behind the comma; got {part!r}")
        options[key.strip()] = _value(value)
    return Remedy(kind, text, options)


def _main_option(kind: str, text: str) -> str:
    found = list(inspect.signature(APPLY[kind]).parameters.values())[1:]
    names = [parameter.name for parameter in found if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    if not names:
        raise FaninError(f"remedy {text}: {kind} takes no value; write {kind}")
    return names[0]


def _value(text: str) -> Any:
    """A number, a truth value, None or else the text itself."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text.strip()


def _of_main_output(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    return lambda outputs, targets: function(main_output(outputs), targets)


def unknown(where: str, given: Any, known: Mapping[str, Any]) -> str:
    """A message for a name that there is not, with the nearest spelling."""
    return f"{where}: expected one of {', '.join(known)}; got {given!r}{nearest(str(given), known)}"


def as_change(given: Any) -> tuple[str, Change]:
    """A name and a function Training -> Training from what fanin.prove takes as a variant.

    That is: a Remedy, its text, a network or a function without arguments that makes one (the variant's networks), or
    a function Training -> Training.
    """
    if isinstance(given, str):
        given = remedy(given)
    if isinstance(given, Remedy):
        return given.code or REMEDIES[given.kind], partial(apply, given)
    if isinstance(given, nn.Module):
        from fanin.training import copy_of

        return type(given).__name__, lambda training: training.changed(make=lambda: copy_of(given))
    if not callable(given):
        raise FaninError(
            "remedy: expected a fanin.Remedy, text such as 'lr=0.001', a function Training -> Training, or a function "
            f"that makes a network; got {type(given).__name__}"
        )
    name = getattr(given, "__name__", type(given).__name__)
    name = "the variant" if name == "<lambda>" else name
    if _takes_nothing(given):
        return name, lambda training: training.changed(make=given)
    return name, partial(_changed_by, given)


def _changed_by(function: Change, training: Training) -> Training:
    found = function(training)
    if not isinstance(found, Training):
        raise FaninError(f"remedy: expected a function that returns a Training; got {type(found).__name__}")
    return found


def _takes_nothing(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return False
    except ValueError:  # a built-in without a signature
        return False
    return True
