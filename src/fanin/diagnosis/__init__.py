"""Diagnosis: why a network does not train, with evidence; any module, and never changed."""

from __future__ import annotations

from fanin.diagnosis.diagnose import diagnose as diagnose
from fanin.diagnosis.diagnosis import Diagnosis as Diagnosis
