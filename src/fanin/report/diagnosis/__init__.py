"""A diagnosis as people read it: the page, a fragment for notebooks, the terminal; from plain data alone."""

from __future__ import annotations

from fanin.report.diagnosis.fragments import one_batch_figure as one_batch_figure
from fanin.report.diagnosis.fragments import rates_figure as rates_figure
from fanin.report.diagnosis.fragments import table as table
from fanin.report.diagnosis.page import page as page
from fanin.report.diagnosis.terminal import print_diagnosis as print_diagnosis
from fanin.report.diagnosis.terminal import print_one_batch as print_one_batch
from fanin.report.diagnosis.terminal import print_rates as print_rates
