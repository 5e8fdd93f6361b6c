"""One thread for all tests of the signal."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    """In every test here."""
