"""Fixtures for all tests: nothing here touches the user's cache or the network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Machines differ in speed; on CI the same examples are drawn every time.
settings.register_profile(
    "fanin", deadline=None, derandomize=bool(os.environ.get("CI")), suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fanin")

MNIST = Path(__file__).parents[2] / "shared" / "data" / "mnist"


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory):
    """A cache folder of the test session's own, for this process and its children."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """The real MNIST, where it lies beside the checkout or FANIN_DATA says."""
    folder = Path(os.environ.get("FANIN_DATA", MNIST))
    if not folder.is_dir():
        pytest.skip("MNIST is not here: set FANIN_DATA to its folder to run this test")
    return folder
