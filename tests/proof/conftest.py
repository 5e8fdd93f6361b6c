"""One thread for small networks."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _small(one_thread):
    """In every test here."""
