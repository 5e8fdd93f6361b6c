"""Buffers of a stack: each member's part starts, and ends, on whole vector registers.

An elementwise kernel computes what is left over after its last whole register with scalar instructions, whose exp
differs in the last bit; and a product's bits may depend on where its matrices start. So every member's part is padded:
what is done to it in a stack is what is done to it alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

_PITCH = 64  # elements; kernels unroll two or four registers of at most 64 bytes


def buffer(like: Tensor, members: int, rows: int, columns: int) -> Tensor:
    """Zeros (M, rows, columns) of like's dtype and device, a multiple of 64 elements from member to member."""
    flat = like.new_zeros(members, pitch(rows * columns))
    return flat[:, : rows * columns].view(members, rows, columns)


def whole(buffer: Tensor) -> Tensor:
    """The memory of a buffer with its padding, flat: what kernels of transcendental functions should work on."""
    return buffer.as_strided((len(buffer) * pitch(buffer[0].numel()),), (1,))


def pitch(count: int) -> int:
    """`count` rounded up to a multiple of 64."""
    return -(-count // _PITCH) * _PITCH


def refill(mine: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    """Copy tensors into those that are there; ValueError unless they are as many, of the same shapes and dtypes."""
    for ours, other in zip(mine, theirs, strict=True):
        if (ours.shape, ours.dtype) != (other.shape, other.dtype):
            raise ValueError(
                f"expected {ours.dtype} of shape {tuple(ours.shape)}; got {other.dtype}, {tuple(other.shape)}"
            )
        ours.copy_(other)
