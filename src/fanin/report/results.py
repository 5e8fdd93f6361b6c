"""The shape of a study's results: frozen dataclasses that `summary` fills and everything else reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fanin.report.answers import Answer
from fanin.report.measures import LayerBand, Measure
from fanin.report.reproduction import Comparison
from fanin.report.trials import SeedCurves
from fanin.statistics import Difference, Rate
from fanin.study import Arm, Study

CURVES = ("train_cost", "test_loss", "test_accuracy", "train_loss", "train_accuracy")


@dataclass(frozen=True)
class TrialOutcome:
    """How one trial ended, in a word (`status`) and in words."""

    seed: int
    status: str
    words: str


@dataclass(frozen=True)
class ArmSummary:
    """One arm. `n` counts results (done or diverged) of `planned` trials; failed trials are no results.

    `statuses` counts all trials that left a record, `troubles` are those that diverged or failed, and `seconds` is
    their training time. The four measures are taken on the last epoch of the trials that trained to the end. `curves`
    hold per metric one curve per seed of `seeds`, epoch by epoch; those of a diverged trial end early. `difference` is
    the accuracy minus the first arm's, paired by seed, simultaneous over the arms; None in the first arm and without a
    pair. `trainable_depth` is theory's (see fanin.record.Record).
    """

    arm: Arm
    planned: int
    n: int
    statuses: Mapping[str, int]
    troubles: tuple[TrialOutcome, ...]
    seconds: float
    success: Rate | None
    accuracy: Measure
    accuracy_on_raw_pixels: Measure
    test_loss: Measure
    train_cost: Measure
    seeds: tuple[int, ...]
    curves: Mapping[str, SeedCurves]
    signal: tuple[LayerBand, ...]
    comparison: Comparison | None
    difference: Difference | None
    trainable_depth: float | None = None

    @property
    def name(self) -> str:
        """The arm's name."""
        return self.arm.name

    @property
    def reproduced(self) -> bool | None:
        """Whether every published point lies inside the spread of our seeds; None if that cannot be said."""
        return self.comparison.reproduced if self.comparison else None

    @property
    def recorded(self) -> int:
        """How many trials left a record."""
        return sum(self.statuses.values())


@dataclass(frozen=True)
class StudySummary:
    """A study and everything that is reported of it. `environments`: the distinct ones of its trials."""

    study: Study
    data: Mapping[str, Any]
    arms: tuple[ArmSummary, ...]
    answers: tuple[Answer, ...]
    seconds: float
    environments: tuple[Mapping[str, Any], ...]

    @property
    def title(self) -> str:
        """The title, or the name if there is none."""
        return self.study.title or self.study.name

    @property
    def device(self) -> str:
        """The device or devices that it ran on."""
        return ", ".join(dict.fromkeys(str(e["device"]) for e in self.environments if "device" in e)) or "unknown"

    @property
    def points(self) -> tuple[int, int]:
        """Published points inside the spread of our seeds, and all that were compared."""
        found = [arm.comparison for arm in self.arms if arm.comparison]
        return sum(c.inside for c in found), sum(len(c.points) for c in found)

    @property
    def planned(self) -> int:
        """How many trials the study asks for."""
        return sum(arm.planned for arm in self.arms)
