"""Watching a real training: statistics in bounded memory, findings as they arise, and no trace afterwards."""

from __future__ import annotations

from fanin.diagnosis.watch.watching import DiagnosisWarning as DiagnosisWarning
from fanin.diagnosis.watch.watching import Watch as Watch
from fanin.diagnosis.watch.watching import watch as watch
