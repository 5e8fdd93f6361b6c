"""The checks: each is one function from evidence to findings, and one line in this table."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fanin.diagnosis.checks.data import input_scale, label_range, no_signal
from fanin.diagnosis.checks.evaluation import eval_mismatch, overfitting
from fanin.diagnosis.checks.modes import frozen_parameters, wrong_mode
from fanin.diagnosis.checks.non_finite import non_finite_data, non_finite_run
from fanin.diagnosis.checks.outputs import output_activation
from fanin.diagnosis.checks.precision import epsilon
from fanin.diagnosis.checks.refusal import refused
from fanin.diagnosis.checks.steps import (
    batch_size,
    learning_rate_high,
    learning_rate_low,
    optimizer,
    too_few_epochs,
)
from fanin.diagnosis.checks.structure import capacity, layers, missing_nonlinearity
from fanin.diagnosis.checks.weights import dead_units, init_scale, saturation, slopes, symmetry
from fanin.diagnosis.checks.wiring import loss, output_shape
from fanin.diagnosis.evidence import Evidence
from fanin.finding import Finding

Check = Callable[[Evidence], Iterator[Finding]]

CHECKS: dict[str, tuple[Check, ...]] = {
    "output-activation": (output_activation, refused),
    "loss": (loss,),
    "output-shape": (output_shape,),
    "label-range": (label_range,),
    "input-scale": (input_scale,),
    "eval-mismatch": (eval_mismatch,),
    "learning-rate-high": (learning_rate_high,),
    "learning-rate-low": (learning_rate_low,),
    "too-few-epochs": (too_few_epochs,),
    "init-scale": (init_scale,),
    "symmetry": (symmetry,),
    "vanishing-gradient": (slopes,),
    "exploding-gradient": (),  # slopes tells both
    "saturation": (saturation,),
    "dead-units": (dead_units,),
    "non-finite": (non_finite_data, non_finite_run),
    "optimizer": (optimizer, epsilon),
    "batch-size": (batch_size,),
    "capacity": (capacity,),
    "missing-nonlinearity": (missing_nonlinearity,),
    "frozen-parameters": (frozen_parameters,),
    "wrong-mode": (wrong_mode,),
    "overfitting": (overfitting,),
    "no-signal": (no_signal,),
    "layers": (layers,),
}
