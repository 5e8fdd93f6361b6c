"""One initialiser at a glance: variances and factors against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from fanin.choice import choose
from fanin.signal.scheme import describe, fans


def relu():
    return choose("activation", "relu")


def test_kaimings_numbers():
    found = describe(choose("init", "kaiming_normal"), (30, 50), relu())
    assert (found.fan_in, found.fan_out) == (50, 30)
    assert found.variance == pytest.approx(2 / 50)
    assert found.forward == pytest.approx(1)
    assert found.backward == pytest.approx(30 / 50)
    assert (found.equal_forward, found.equal_backward) == pytest.approx((1, 1))
    assert found.measured_std == pytest.approx(math.sqrt(2 / 50), rel=0.08)
    assert sum(found.shares) == pytest.approx(1)
    assert "He" in found.documentation or "kaiming" in found.documentation


def test_a_convolutions_fans_count_its_kernel():
    assert fans((8, 4, 3, 3)) == (72, 36)
    found = describe(choose("init", "lecun_normal"), (8, 4, 3, 3), choose("activation", "identity"))
    assert found.variance == pytest.approx(1 / 36)
    assert (found.forward, found.backward) == pytest.approx((1, 2))


def test_what_has_no_variance_has_no_factor():
    found = describe(choose("init", "constant"), (4, 4), relu())
    assert found.variance is found.forward is found.equal_backward is None
    assert (found.measured_mean, found.measured_std, found.shares) == (pytest.approx(0.1), 0, ())
    both = describe(choose("init", "random_asymmetric"), (6, 4), relu())
    assert both.variance is None
    assert both.shape == (6, 4)
    assert sum(both.shares) == pytest.approx(1)


def test_a_shape_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"shape: expected \(out, in\)"):
        describe(choose("init", "normal"), (4,), relu())


def test_a_description_draws_nothing_of_torchs_own():
    state = torch.get_rng_state()
    describe(choose("init", "orthogonal"), (4, 4), relu())
    assert torch.equal(state, torch.get_rng_state())
