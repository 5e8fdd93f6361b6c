"""Triton kernels for stacks on a card: optimiser steps that read and write every number once, and Philox words.

Each has a counterpart in plain tensor operations (`engine.card.updates`, `engine.card.philox`), which is what it is
tested against, in Triton's interpreter where there is no card. Rows are members: (M, P), contiguous; a member that is
not alive is not touched. Coefficients (steps, M, C) are looked up at `step`, a tensor of one, so that a captured step
can be replayed.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024


@triton.jit
def _adam(
    p_ptr, g_ptr, m_ptr, v_ptr, top_ptr, coefficients, step_ptr, alive_ptr, members, length,
    AMSGRAD: tl.constexpr, DECOUPLED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    member = tl.program_id(1)
    if tl.load(alive_ptr + member) == 0:
        return
    c = coefficients + (tl.load(step_ptr) * members + member) * 7
    size, root, beta1_, beta2, beta2_, eps, decay = (
        tl.load(c), tl.load(c + 1), tl.load(c + 2), tl.load(c + 3), tl.load(c + 4), tl.load(c + 5), tl.load(c + 6)
    )  # fmt: skip
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    at, inside = member.to(tl.int64) * length + column, column < length
    p, g = tl.load(p_ptr + at, inside), tl.load(g_ptr + at, inside)
    m, v = tl.load(m_ptr + at, inside), tl.load(v_ptr + at, inside)
    if DECOUPLED:
        p = p * decay
    else:
        g = g + decay * p
    m = m + (g - m) * beta1_
    v = v * beta2 + g * g * beta2_
    tl.store(m_ptr + at, m, inside)
    tl.store(v_ptr + at, v, inside)
    if AMSGRAD:
        v = tl.maximum(tl.load(top_ptr + at, inside), v)
        tl.store(top_ptr + at, v, inside)
    denominator = tl.div_rn(tl.sqrt_rn(v), root) + eps
    tl.store(p_ptr + at, p - size * tl.div_rn(m, denominator), inside)


@triton.jit
def _sgd(
    p_ptr, g_ptr, b_ptr, coefficients, step_ptr, alive_ptr, members, length,
    MOMENTUM: tl.constexpr, NESTEROV: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    member = tl.program_id(1)
    if tl.load(alive_ptr + member) == 0:
        return
    c = coefficients + (tl.load(step_ptr) * members + member) * 5
    lr, decay, keep, add, momentum = tl.load(c), tl.load(c + 1), tl.load(c + 2), tl.load(c + 3), tl.load(c + 4)
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    at, inside = member.to(tl.int64) * length + column, column < length
    p = tl.load(p_ptr + at, inside)
    g = tl.load(g_ptr + at, inside) + decay * p
    if MOMENTUM:
        b = tl.load(b_ptr + at, inside) * keep + g * add
        tl.store(b_ptr + at, b, inside)
        g = g + momentum * b if NESTEROV else b
    tl.store(p_ptr + at, p - lr * g, inside)


@triton.jit
def _rmsprop(
    p_ptr, g_ptr, s_ptr, a_ptr, b_ptr, coefficients, step_ptr, alive_ptr, members, length,
    CENTERED: tl.constexpr, MOMENTUM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    member = tl.program_id(1)
    if tl.load(alive_ptr + member) == 0:
        return
    c = coefficients + (tl.load(step_ptr) * members + member) * 6
    lr, decay, alpha, alpha_, eps, momentum = (
        tl.load(c), tl.load(c + 1), tl.load(c + 2), tl.load(c + 3), tl.load(c + 4), tl.load(c + 5)
    )  # fmt: skip
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    at, inside = member.to(tl.int64) * length + column, column < length
    p = tl.load(p_ptr + at, inside)
    g = tl.load(g_ptr + at, inside) + decay * p
    s = tl.load(s_ptr + at, inside) * alpha + g * g * alpha_
    tl.store(s_ptr + at, s, inside)
    if CENTERED:
        a = tl.load(a_ptr + at, inside)
        a = a + (g - a) * alpha_
        tl.store(a_ptr + at, a, inside)
        s = s - a * a
    g = tl.div_rn(g, tl.sqrt_rn(s) + eps)
    if MOMENTUM:
        g = tl.load(b_ptr + at, inside) * momentum + g
        tl.store(b_ptr + at, g, inside)
    tl.store(p_ptr + at, p - lr * g, inside)


@triton.jit
def _words(out_ptr, key_ptr, epoch_ptr, step_ptr, layer, blocks, BLOCK: tl.constexpr):
    member = tl.program_id(1)
    block = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x0 = block.to(tl.uint64) + 1
    x1 = x0 * 0 + layer
    x2 = x0 * 0 + tl.load(step_ptr).to(tl.uint64)
    x3 = x0 * 0 + tl.load(epoch_ptr + member).to(tl.uint64)
    k0 = x0 * 0 + tl.load(key_ptr + 2 * member).to(tl.uint64)
    k1 = x0 * 0 + tl.load(key_ptr + 2 * member + 1).to(tl.uint64)
    a0 = x0 * 0 + 0xD2E7470EE14C6C93
    a1 = x0 * 0 + 0xCA5A826395121157
    w0 = x0 * 0 + 0x9E3779B97F4A7C15
    w1 = x0 * 0 + 0xBB67AE8584CAA73B
    for _ in range(10):
        high0, low0 = tl.umulhi(x0, a0), x0 * a0
        high1, low1 = tl.umulhi(x2, a1), x2 * a1
        x0, x1, x2, x3 = high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0
        k0, k1 = k0 + w0, k1 + w1
    at = out_ptr + (member.to(tl.int64) * blocks + block) * 4
    inside = block < blocks
    tl.store(at, x0.to(tl.int64), inside)
    tl.store(at + 1, x1.to(tl.int64), inside)
    tl.store(at + 2, x2.to(tl.int64), inside)
    tl.store(at + 3, x3.to(tl.int64), inside)


def adam(
    *, rows: Tensor, gradients: Tensor, state: list[Tensor], coefficients: Tensor, step: Tensor, alive: Tensor,
    amsgrad: bool, decoupled: bool = False,
) -> None:  # fmt: skip
    """One Adam step of all living rows (see engine.card.updates)."""
    top = state[2] if amsgrad else rows
    _adam[_grid(rows)](
        rows, gradients, state[0], state[1], top, coefficients, step, alive, *rows.shape, amsgrad, decoupled, _BLOCK
    )  # fmt: skip


def adamw(**stack: Any) -> None:
    """One AdamW step of all living rows."""
    adam(**stack, decoupled=True)


def sgd(
    *, rows: Tensor, gradients: Tensor, state: list[Tensor], coefficients: Tensor, step: Tensor, alive: Tensor,
    momentum: bool, nesterov: bool,
) -> None:  # fmt: skip
    """One SGD step of all living rows (see engine.card.updates)."""
    velocity = state[0] if momentum else rows
    _sgd[_grid(rows)](
        rows, gradients, velocity, coefficients, step, alive, *rows.shape, momentum, nesterov, _BLOCK
    )  # fmt: skip


def rmsprop(
    *, rows: Tensor, gradients: Tensor, state: list[Tensor], coefficients: Tensor, step: Tensor, alive: Tensor,
    centered: bool, momentum: bool,
) -> None:  # fmt: skip
    """One RMSprop step of all living rows (see engine.card.updates)."""
    average = state[1] if centered else rows
    velocity = state[-1] if momentum else rows
    _rmsprop[_grid(rows)](
        rows, gradients, state[0], average, velocity, coefficients, step, alive, *rows.shape, centered, momentum, _BLOCK
    )  # fmt: skip


def words(key: Tensor, out: Tensor, *, layer: int, step: Tensor, epoch: Tensor) -> None:
    """Fill out (M, 4 n) with the first n Philox blocks of each member's stream (see engine.card.philox)."""
    blocks = out.shape[1] // 4
    grid = (triton.cdiv(blocks, _BLOCK), len(out))
    _words[grid](out, key, epoch, step, layer, blocks, _BLOCK)


def _grid(rows: Tensor) -> tuple[int, int]:
    return triton.cdiv(rows.shape[1], _BLOCK), len(rows)
