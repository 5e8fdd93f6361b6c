"""One thread for small networks, and global random states as a test can compare them."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def random_state():
    """A function that tells all global random states, as bytes."""

    def now() -> bytes:
        legacy = np.random.get_state()  # noqa: NPY002 - the global state is what is looked at
        return pickle.dumps((torch.get_rng_state().tolist(), legacy[1].tolist(), legacy[2:], random.getstate()))

    return now
