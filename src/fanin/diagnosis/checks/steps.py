"""Checks of the steps that training takes: their learning rate, their optimiser, their batches, how many they are."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

from fanin.diagnosis.evidence import CLEAR, GOOD, SHARE, Evidence, percent
from fanin.diagnosis.experiments import adam, batches_of, rate, without_decay
from fanin.diagnosis.runs import RunResult
from fanin.finding import Finding, Remedy
from fanin.training.optimizers import held

_BENGIO = "Bengio (2012), Practical recommendations for gradient-based training of deep architectures, section 3.1.1"


def learning_rate_high(e: Evidence) -> Iterator[Finding]:
    """A tenth or a hundredth of the rate learns clearly more in as many steps."""
    if not e.steps or not (e.troubled or _restless(e.run)):
        return
    lower = {f: e.experiment(f"lr / {f}", rate(1 / f)) for f in (10, 100)}
    if max(map(e.quality, lower.values())) - e.learnt < CLEAR and e.run.failed:
        lower[1000] = e.experiment("lr / 1000", rate(1e-3))
    factor, best = max(lower.items(), key=lambda item: e.quality(item[1]))
    gain = e.quality(best) - e.learnt
    if gain < CLEAR:
        return
    how = f"the loss is not finite from step {e.run.stopped} on" if e.run.stopped else _words(e)
    yield Finding(
        "learning-rate-high",
        None,
        e.run.lr,
        e.run.lr / factor,
        f"at lr = {e.run.lr:g} {how}; at {e.run.lr / factor:g} it has learnt {percent(e.quality(best))} of the task "
        f"after {e.steps} steps instead of {percent(e.learnt)}",
        f"lr = {e.run.lr / factor:g}; fanin.lr_find(model, data) for the range",
        min(0.97, 0.65 + 0.35 * gain),
        _BENGIO,
        Remedy("lr", f"lr = {e.run.lr / factor:g}", {"factor": 1 / factor}),
    )


def _words(e: Evidence) -> str:
    return f"the loss goes from {e.run.first:.3g} to {e.run.final:.3g}"


def _restless(result: RunResult) -> bool:
    """Whether the loss ends higher than it began."""
    return math.isfinite(result.final) and result.final > 1.5 * abs(result.first) > 0


def learning_rate_low(e: Evidence) -> Iterator[Finding]:
    """At ten times the rate it learns clearly more, and would at its own not get there within what is planned.

    Small steps at lr do in 10 n steps about what ten times the rate does in n: so a rate is too low where even that
    many are not enough.
    """
    if not e.steps or not e.struggles or e.run.failed:
        return
    qualities = _climb(e)
    best = max(qualities.values())
    if best - e.learnt < CLEAR:
        return
    factor = min(f for f, q in qualities.items() if q >= e.learnt + 0.7 * (best - e.learnt))
    if e.steps * factor <= e.planned:
        return
    yield Finding(
        "learning-rate-low",
        None,
        e.run.lr,
        e.run.lr * factor,
        f"at lr = {e.run.lr:g} {_words(e)} in {e.steps} steps, {percent(e.learnt)} of the task; at "
        f"{e.run.lr * factor:g} it has learnt {percent(qualities[factor])}: at this rate that would take about "
        f"{e.steps * factor} steps",
        f"lr = {e.run.lr * factor:g}; fanin.lr_find(model, data) for the range",
        min(0.96, 0.65 + 0.3 * (best - e.learnt)),
        _BENGIO,
        Remedy("lr", f"lr = {e.run.lr * factor:g}", {"factor": float(factor)}),
    )


def _climb(e: Evidence) -> dict[int, float]:
    """Qualities at ten times the rate, a hundred times, and so on, until one breaks or is clearly worse than before."""
    found: dict[int, float] = {}
    for factor in (10, 100, 1000, 10**4, 10**5, 10**6):
        result = e.experiment(f"lr x {factor}", rate(factor))
        found[factor] = e.quality(result)
        if result.failed or found[factor] < max(found.values()) - CLEAR or found[factor] > 0.9:
            break
    return found


def optimizer(e: Evidence) -> Iterator[Finding]:
    """Parameters that it does not hold, settings that cannot work, and another one that does much better."""
    spec, where = e.training.optimizer, "torch.optim"
    if spec.foreign and not any(names for _, names in spec.groups):
        yield _optimizer("the optimiser holds no parameter of this network, but another's", 0.99, where)
        return
    if e.start.error is not None or e.start.graph is None:
        return
    # a function may hold parameters of the network given, instead of taking a copy's
    model = e.training.new(e.seed) if e.steps else e.model
    built = spec.build(model)  # which changes nothing
    owned = {id(p) for p in held(built)}
    missing = [n for n, p in model.named_parameters() if p.requires_grad and id(p) not in owned]
    missing = [n for n in missing if n not in e.start.without_gradient]
    if missing and (e.troubled or (not e.steps and not owned)):
        yield _optimizer(
            f"the optimiser does not hold {', '.join(missing[:3])}"
            + (f" and {len(missing) - 3} more" if missing[3:] else ""),
            0.85,
            where,
        )
    for words in _impossible(built):
        yield _optimizer(words, 0.9, where)
    if e.steps and e.struggles:
        yield from _other_optimizer(e)


def _impossible(built: torch.optim.Optimizer) -> Iterator[str]:
    for group in built.param_groups[:1]:
        if group.get("maximize"):
            yield "maximize=True climbs the loss"
        if float(group.get("lr", 1.0)) == 0.0:
            yield "lr = 0: nothing moves"
        if group.get("momentum", 0) >= 1:
            yield f"momentum {group['momentum']:g}: velocities never decay"
        if group.get("eps", 0) > 1e-2 and "betas" in group:
            yield f"eps = {group['eps']:g} outweighs the gradients' own size, so that steps are tiny"


def _other_optimizer(e: Evidence) -> Iterator[Finding]:
    """Without weight decay; Adam. Only what no other learning rate does speaks against the optimiser."""
    rates = [e.quality(r) for name, r in e.experiments.items() if name.startswith("lr ")]
    best_rate = max([e.learnt, *rates])
    calm = e.quality(e.experiment("no weight decay", without_decay)) if _decays(e) else 0.0
    if calm - max(best_rate, e.learnt) > CLEAR:
        yield _optimizer(
            f"weight decay outweighs the gradient: without it the network learns {percent(calm)} of the task instead "
            f"of {percent(e.learnt)}",
            0.9,
            "Krogh and Hertz (1991), A simple weight decay can improve generalization",
            Remedy("optimizer", "weight_decay=0", {"weight_decay": 0.0}),
        )
    best = max(
        e.quality(e.experiment("Adam at 1e-3", adam)), e.quality(e.experiment("Adam at 1e-2", lambda t: adam(t, 1e-2)))
    )
    if best_rate < SHARE * best and best - best_rate > CLEAR:
        yield _optimizer(
            f"Adam learns {percent(best)} of the task in {e.steps} steps, {e.training.optimizer.words} at the best of "
            f"the rates that were tried {percent(best_rate)}",
            min(0.8, 0.5 + 0.4 * (best - best_rate)),
            "Kingma and Ba (2015)",
            Remedy("optimizer", "torch.optim.Adam(model.parameters(), lr=1e-3)", {"name": "adam", "lr": 1e-3}),
        )


def _decays(e: Evidence) -> bool:
    built = e.training.optimizer.build(e.model)
    return any(float(group.get("weight_decay", 0)) > 0 for group in built.param_groups)


def _optimizer(evidence: str, confidence: float, reference: str, fix: Remedy | None = None) -> Finding:
    remedy = fix.code if fix else "torch.optim.Adam(model.parameters(), lr=1e-3), made after the model is complete"
    return Finding("optimizer", None, None, None, evidence, remedy, confidence, reference, fix)


def batch_size(e: Evidence) -> Iterator[Finding]:
    """Batches too small to normalise by or to point anywhere, or so large that an epoch is a step or two."""
    size, examples = e.training.batches.batch_size or e.start.batch.size, e.training.batches.examples
    norms = any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in e.model.modules())
    if norms and e.start.batch.size <= 2:
        yield _batch(
            f"batch normalisation by {e.start.batch.size} example{'s' if e.start.batch.size > 1 else ''}: mean and "
            "deviation are those of noise",
            float(size),
            8.0,
            32,
            0.9,
        )
    elif examples and size * 2 > examples >= 128 and e.epochs is not None and e.planned < 200 and e.prospect < GOOD:
        yield from _smaller(e, size)
    elif examples and size * 2 > examples >= 128 and e.epochs is None and e.struggles:
        yield _batch(
            f"a batch has {size} of the {examples} examples: an epoch is {math.ceil(examples / size)} step"
            f"{'s' if size < examples else ''}",
            float(size),
            examples / 8,
            32,
            0.45,
        )
    elif size <= 4 and examples and examples >= 64 and e.troubled:
        yield from _larger(e, size)


def _smaller(e: Evidence, size: int) -> Iterator[Finding]:
    better = e.quality(
        e.experiment("batches of 32, as many epochs", batches_of(32), steps=min(10 * e.steps, e.planned * size // 32))
    )
    if better - e.learnt > CLEAR:
        yield _batch(
            f"batches of {size} leave {e.planned} steps in {e.epochs} epochs; batches of 32 learn {percent(better)} "
            f"of the task in as many epochs instead of {percent(e.learnt)}",
            float(size),
            32.0,
            32,
            0.85,
        )


def _larger(e: Evidence, size: int) -> Iterator[Finding]:
    better = e.quality(e.experiment("batches of 32", batches_of(32)))
    if better - e.learnt > CLEAR:
        yield _batch(
            f"batches of {size}: gradients are mostly noise; batches of 32 learn {percent(better)} of the task in as "
            f"many steps instead of {percent(e.learnt)}",
            float(size),
            8.0,
            32,
            0.75,
        )


def _batch(evidence: str, value: float, threshold: float, size: int, confidence: float) -> Finding:
    return Finding(
        "batch-size",
        None,
        value,
        threshold,
        evidence,
        f"batch_size={size}",
        confidence,
        "Bengio (2012), section 3.1.1; Ioffe and Szegedy (2015)",
        Remedy("batch-size", f"batch_size={size}", {"size": size}),
    )


def too_few_epochs(e: Evidence) -> Iterator[Finding]:
    """After all planned epochs the loss still falls: three times as many steps learn clearly more."""
    if not e.steps or e.epochs is None or e.run.failed or e.planned > 5 * e.steps:
        return
    short = e.experiment("as planned", lambda t: t, steps=e.planned, mode=None)
    long = e.experiment("three times the epochs", lambda t: t, steps=3 * e.planned, mode=None)
    now, then = e.quality(short), e.quality(long)
    falls = short.final - long.final
    if short.failed or long.failed or falls < 0.05 * abs(short.final):
        return
    if then - now < CLEAR / 2 and not (1 - then < 0.5 * (1 - now) and then - now > 0.04):
        return
    yield Finding(
        "too-few-epochs",
        None,
        float(e.epochs),
        3.0 * e.epochs,
        f"after {e.epochs} epoch{'s' if e.epochs > 1 else ''} ({e.planned} steps) the loss is {short.final:.3g}, "
        f"{percent(now)} of the task, and still falls: after {3 * e.epochs} it is {long.final:.3g}, {percent(then)}",
        f"epochs = {3 * e.epochs}, or until the evaluation loss stops falling",
        min(0.9, 0.6 + 0.4 * (then - now)),
        "Prechelt (1998), Early stopping - but when?",
    )
