"""Diagnosis: why a network does not train, with evidence; any module, and never changed."""

from __future__ import annotations

from fanin.diagnosis.diagnose import diagnose as diagnose
from fanin.diagnosis.diagnosis import Diagnosis as Diagnosis
from fanin.diagnosis.lr_find import LearningRates as LearningRates
from fanin.diagnosis.lr_find import lr_find as lr_find
from fanin.diagnosis.one_batch import OneBatch as OneBatch
from fanin.diagnosis.one_batch import overfit_one_batch as overfit_one_batch
from fanin.diagnosis.watch import DiagnosisWarning as DiagnosisWarning
from fanin.diagnosis.watch import Watch as Watch
from fanin.diagnosis.watch import watch as watch
