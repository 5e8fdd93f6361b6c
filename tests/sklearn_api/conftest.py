"""One thread: small matrices, and equal results to the bit."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    """In every test here."""
