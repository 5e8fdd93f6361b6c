"""Checks of what takes part in training: parameters without gradients, layers in the wrong mode."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from fanin.diagnosis.evidence import CLEAR, GOOD, Evidence, percent
from fanin.diagnosis.experiments import adam
from fanin.finding import Finding, Remedy
from fanin.proof.remedies import unfreeze

_MODAL = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


def frozen_parameters(e: Evidence) -> Iterator[Finding]:
    """Parameters that no gradient reaches: all of them, or those that training waits for."""
    graph = e.start.graph
    if graph is None:
        return
    named = dict(e.model.named_parameters())
    off = [n for n, p in named.items() if not p.requires_grad]
    if not graph.used and named:
        why = (
            "all have requires_grad=False"
            if len(off) == len(named)
            else "forward runs under torch.no_grad() or detaches"
        )
        yield _frozen_finding(f"the outputs depend on no parameter: {why}", None, 0.98)
        return
    lost = [n for n in e.start.without_gradient if module_called(e, n)]
    if lost and (not e.steps or e.learnt < GOOD):
        yield _frozen_finding(f"no gradient reaches {some(lost)}: detached, or under torch.no_grad()", lost[0], 0.85)
    elif off and e.troubled and (better := _unfrozen(e)) is not None:
        yield _frozen_finding(
            f"{some(off)} ha{'s' if len(off) == 1 else 've'} requires_grad=False; with gradients the network learns "
            f"{percent(better)} of the task instead of {percent(e.learnt)}",
            off[0],
            0.85,
        )


def _unfrozen(e: Evidence) -> float | None:
    better = max(
        e.quality(e.experiment("all parameters free", unfreeze)),
        e.quality(e.experiment("all parameters free, Adam", lambda t: adam(unfreeze(t)))),
    )
    return better if better - e.learnt > CLEAR else None


def module_called(e: Evidence, parameter: str) -> bool:
    """Whether the module that holds a parameter ran, as far as hooks tell."""
    return parameter.rpartition(".")[0] in e.called


def some(names: list[str]) -> str:
    """Three names, and how many more."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _frozen_finding(evidence: str, name: str | None, confidence: float) -> Finding:
    return Finding(
        "frozen-parameters",
        name,
        None,
        None,
        evidence,
        "p.requires_grad_(True) for the parameters that shall learn, before the optimiser is made",
        confidence,
        "torch.autograd: locally disabling gradient computation",
        Remedy("unfreeze", "for p in model.parameters(): p.requires_grad_(True)"),
    )


def wrong_mode(e: Evidence) -> Iterator[Finding]:
    """Training in evaluation mode of what behaves otherwise in training, or noise that stays on in evaluation."""
    modal = [name for name, part in e.model.named_modules() if isinstance(part, _MODAL) and not part.training]
    active = [name for name in modal if _acts(e.model.get_submodule(name))]
    if active:
        yield Finding(
            "wrong-mode",
            active[0],
            None,
            None,
            f"in evaluation mode when training begins: {some(active)} will not drop, or not normalise by the batch",
            "model.train() before training, model.eval() before evaluating",
            0.7 if e.model.training else 0.8,
            "torch.nn.Module.train",
            Remedy("train-mode", "model.train()"),
        )
    yield from _still(e)
    if e.drops_in_evaluation:
        yield Finding(
            "wrong-mode",
            None,
            None,
            None,
            "a dropout function drops while the network is in evaluation mode: it was called without "
            "training=self.training",
            "F.dropout(x, p, training=self.training)",
            0.8,
            "torch.nn.functional.dropout",
        )


def _acts(part: nn.Module) -> bool:
    if isinstance(part, nn.modules.dropout._DropoutNd):
        return part.p > 0
    frozen = [p for p in part.parameters(recurse=False) if not p.requires_grad]
    return not frozen  # batch normalisation that is frozen on purpose has frozen parameters


def _still(e: Evidence) -> Iterator[Finding]:
    """Batch normalisation whose running statistics do not move."""
    for name, part in e.model.named_modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.momentum == 0 and part.track_running_stats:
            yield Finding(
                "wrong-mode",
                name,
                0.0,
                0.1,
                f"{name} has momentum 0: its running mean and variance stay those of birth, and evaluation uses them",
                "nn.BatchNorm1d(width) with its default momentum of 0.1",
                0.85,
                "torch.nn.BatchNorm1d",
            )
