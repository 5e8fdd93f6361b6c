"""An optimiser as the command line names it, with its options: sgd, or sgd,lr=0.1,momentum=0.9."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from fanin.errors import FaninError, nearest

if TYPE_CHECKING:
    from torch.optim import Optimizer


def optimizer_by_name(text: str) -> tuple[type[Optimizer], dict[str, Any]]:
    """The class of torch.optim and its options; FaninError, with the nearest spelling, for what it does not have."""
    from fanin.proof.remedies import OPTIMIZERS, remedy, unknown  # loads torch

    options = dict(remedy(f"optimizer={text}").options)
    name = str(options.pop("name", ""))
    kind = OPTIMIZERS.get(name.lower())
    if kind is None:
        raise FaninError(f"{unknown('--optimizer', name, OPTIMIZERS)}; or MODULE:ATTR, a function of the parameters")
    known = list(inspect.signature(kind).parameters)[1:]
    for key, value in options.items():
        if key not in known:
            raise FaninError(f"--optimizer {text}: {name} takes {', '.join(known)}; got {key!r}{nearest(key, known)}")
        if isinstance(value, str):
            raise FaninError(f"--optimizer {text}: {key}: expected a number, or True or False; got {value!r}")
    return kind, options
