"""Study: a question, the arms that are compared to answer it, and the seeds; TOML in and out."""

from __future__ import annotations

from fanin.study.document import MAX_FILE
from fanin.study.parts import Arm, Metric, Published, Quantity, Question
from fanin.study.plain import MAX_ARMS
from fanin.study.study import MAX_TRIALS, Study, refuse_code

__all__ = [
    "MAX_ARMS",
    "MAX_FILE",
    "MAX_TRIALS",
    "Arm",
    "Metric",
    "Published",
    "Quantity",
    "Question",
    "Study",
    "refuse_code",
]
