"""Fixtures for all tests: nothing here touches the user's cache or the network."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
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


@pytest.fixture
def run_strictly() -> Callable[..., str]:
    """Run Python with these arguments, warnings as errors, in a folder: what it prints, if it ends well."""

    def run(*arguments: str, folder: Path) -> str:
        command = [sys.executable, "-W", "error", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def one_thread():
    """Small networks are faster so, and the same on every machine."""
    import torch  # most tests want none

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def random_state():
    """A function that tells all global random states, as bytes."""
    import pickle
    import random

    import numpy as np
    import torch

    def now() -> bytes:
        legacy = np.random.get_state()  # noqa: NPY002 - the global state is what is looked at
        return pickle.dumps((torch.get_rng_state().tolist(), legacy[1].tolist(), legacy[2:], random.getstate()))

    return now
