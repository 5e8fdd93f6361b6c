"""Divergence, told in one way by all that trains here: an error, and a model that is as before the epoch it was in."""

from __future__ import annotations

from typing import Any

from fanin.record import Divergence


class NotFiniteError(ArithmeticError):
    """A number of a step, counted from 1, is not finite: for the estimator, which tells of it as a DivergedError."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"{what} in step {step}")
        self.step, self.what = step, what


class DivergedError(FloatingPointError):
    """Training has left the finite numbers; nothing of what came before is lost.

    where: epoch and step, from 1, and the layer, from 1 (None of a machine alone, or of fine-tuning). model: the
    estimator, also at hand where `RBM().fit(X)` was all there was: fitted as far as it had come before that epoch, its
    divergence_ set. After set_params(lr=..., warm_start=True) another fit goes on from there. why: what was not finite.
    """

    def __init__(self, message: str, where: Divergence, model: Any, why: str) -> None:
        super().__init__(message, where, model, why)  # all of them, so that the error can be pickled
        self.where, self.model, self.why = where, model, why

    def __str__(self) -> str:
        return self.args[0]


def diverged(model: Any, what: str, where: Divergence, *, why: str, remedy: str) -> DivergedError:
    """The error to raise for a model, whose divergence_ it sets: what diverged, why one thinks so, what to do."""
    model.divergence_ = where
    at = f"diverged in epoch {where.epoch}, step {where.step} ({why})"
    return DivergedError(f"{what}: {at}; all is kept as it was before this epoch: {remedy}", where, model, why)
