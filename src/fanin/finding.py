"""Finding: one diagnosed cause, as plain data; the causes that there are; remedies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# code: what it means, in one line. The functions that look for them are fanin.diagnosis.checks'.
CAUSES: dict[str, str] = {
    "output-activation": "the last activation does not fit the loss, or cannot reach the targets",
    "loss": "the loss does not fit the task, or is not lowered by training",
    "output-shape": "the shape of the outputs does not fit the targets",
    "label-range": "targets have values that the loss does not accept or the outputs cannot reach soon",
    "input-scale": "inputs are not normalised",
    "eval-mismatch": "evaluation data are prepared otherwise than training data",
    "learning-rate-high": "the learning rate is too high",
    "learning-rate-low": "the learning rate is too low",
    "too-few-epochs": "training ends while the loss still falls steeply",
    "init-scale": "initial weights are too large or too small",
    "symmetry": "units start equal, and stay so",
    "vanishing-gradient": "gradients shrink from layer to layer on the way back",
    "exploding-gradient": "gradients grow from layer to layer on the way back",
    "saturation": "units are where their activation is flat",
    "dead-units": "units are zero for every example",
    "non-finite": "NaN or infinity in data, parameters, outputs, loss or gradients",
    "optimizer": "the optimiser does not hold the parameters, or cannot work with its settings",
    "batch-size": "the batch size is too small, or leaves hardly a step in an epoch",
    "capacity": "the network is too small for the task",
    "missing-nonlinearity": "weighted layers follow each other without an activation between",
    "frozen-parameters": "parameters get no gradient",
    "wrong-mode": "the network trains in evaluation mode, or evaluates in training mode",
    "overfitting": "training loss falls while evaluation loss rises",
    "no-signal": "inputs tell nothing about the targets",
    "layers": "a layer that is never called, drops nearly everything, or stands where it cannot work",
}

# kind: what it changes. The functions that apply them are fanin.proof.remedies'.
REMEDIES: dict[str, str] = {
    "init": "draws all weights anew by a scheme of fanin.init_",
    "normalization": "puts batch normalisation behind every hidden weighted layer",
    "lr": "takes another learning rate",
    "input-scaling": "standardises inputs by the training data's mean and deviation",
    "target-scaling": "standardises regression targets",
    "loss": "takes another loss",
    "output-activation": "takes the network's last activation away, or puts one there",
    "optimizer": "takes another optimiser",
    "batch-size": "takes another batch size",
    "train-mode": "trains in training mode",
    "unfreeze": "gives every parameter a gradient, and to the optimiser",
}


@dataclass(frozen=True)
class Remedy:
    """A change of how a network is trained; fanin.prove(..., remedy, ...) tells whether it helps.

    kind: a key of REMEDIES. options: of that change. code: the same as a user would write it.
    """

    kind: str
    code: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """One cause why a network does not train as it could.

    cause: a key of CAUSES. layer: the path of the module or parameter, None where no single one is meant. value: what
    was measured; threshold: what it was held against (None where a fact has no number). evidence: what was seen, in
    words with numbers. remedy: what to do, as code or a sentence. confidence: in (0, 1], how surely this keeps the
    network from training. reference: where the rule or threshold comes from. fix: the remedy as an object that
    fanin.prove accepts, where it can be applied without the user.
    """

    cause: str
    layer: str | None
    value: float | None
    threshold: float | None
    evidence: str
    remedy: str
    confidence: float
    reference: str
    fix: Remedy | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        out = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "fix"}
        if self.fix:
            out["fix"] = {"kind": self.fix.kind, "code": self.fix.code, "options": dict(self.fix.options)}
        return out
