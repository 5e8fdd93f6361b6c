"""The marker of the driver's long tests."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes half a minute or more (deselect with -m 'not slow')")
