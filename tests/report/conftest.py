"""The invented studies, stored once and summarised once for all tests of the report."""

from __future__ import annotations

import made_up
import pytest

from fanin.report.page import render


@pytest.fixture(scope="session")
def summaries(tmp_path_factory):
    return made_up.all_of_them(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def by_name(summaries):
    return {summary.study.name: summary for summary in summaries}


@pytest.fixture(scope="session")
def html(summaries):
    return render(summaries)
