"""The Triton kernels: in Triton's interpreter against plain tensor operations, and compiled for cards.

The interpreter must be chosen before Triton is loaded, so that these tests run in processes of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed: pip install triton")

INTERPRETED = """
import torch
from fanin.engine.card import kernels, philox
from fanin.engine.card.updates import Update
from fanin.engine.card.device_masks import DeviceMasks
from fanin.choice import choose
from fanin.recipe import Recipe, Trial
import test_updates

key, epoch, step = philox.keys([0, 5, 2**60], "dropout"), torch.tensor([1, 2, 3]), torch.tensor([7])
out = torch.zeros(3, 4 * 1500, dtype=torch.int64)
kernels.words(key, out, layer=2, step=step, epoch=epoch)
assert torch.equal(out, philox.words(key, 6000, layer=2, step=step, epoch=epoch))

masks = [[torch.zeros(2, 7, width) for width in (5, 64)] for _ in range(2)]
for drawn, use in zip(masks, (False, True)):
    device = DeviceMasks(drawn, kernels=use)
    for m in range(2):
        device.admit(m, Trial(Recipe(dropout=0.3), m))
    device.draw(torch.tensor([1, 4]), torch.tensor([2]))
assert all(torch.equal(a, b) for a, b in zip(*masks)) and masks[0][0].any()

for name, first, second in test_updates.STACKS:
    ends = []
    for use in (False, True):
        network = test_updates.network_of(3, torch.float32)
        choices = [choose("optimizer", {"name": name, **o}) for o in (first, second)]
        update = Update(choices[0], network, kernels=use)
        for m, choice in enumerate(choices):
            update.admit(m, choice)
        update.begin_epoch(6)
        for step in range(6):
            length = network.gradients.shape[1]
            network.gradients.copy_(test_updates.gradient(step, length, torch.float32).expand(3, -1))
            network.gradients[2] = float("nan")
            update.step(torch.tensor([step]), torch.tensor([True, step < 4, False]))
        ends.append(network.parameters)
    assert ends[1].isfinite().all(), name
    assert torch.allclose(*ends, rtol=1e-5, atol=1e-6), (name, first)
print("agreed")
"""

COMPILED = """
import warnings
warnings.simplefilter("ignore")
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from fanin.engine.card import kernels

NUMBERS = ["*fp32"]
PLACE = ["*i64", "*i1", "i32", "i32"]
KERNELS = [
    (kernels._adam, NUMBERS * 6 + PLACE, {"AMSGRAD": True, "DECOUPLED": False}),
    (kernels._adam, NUMBERS * 6 + PLACE, {"AMSGRAD": False, "DECOUPLED": True}),
    (kernels._sgd, NUMBERS * 4 + PLACE, {"MOMENTUM": True, "NESTEROV": True}),
    (kernels._rmsprop, NUMBERS * 6 + PLACE, {"CENTERED": True, "MOMENTUM": True}),
    (kernels._words, ["*i64"] * 4 + ["i32", "i32"], {}),
]
for function, types, flags in KERNELS:
    flags = flags | {"BLOCK": 1024}
    signature = dict(zip(function.arg_names, types)) | dict.fromkeys(flags, "constexpr")
    for capability in (80, 90):
        source = ASTSource(fn=function, signature=signature, constexprs=flags)
        assert triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]
print("compiled")
"""


def run(program: str, **environment: str) -> str:
    here = str(Path(__file__).parent)
    process = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": here} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stdout.strip()


def test_kernels_agree_with_plain_operations() -> None:
    assert run(INTERPRETED, TRITON_INTERPRET="1").endswith("agreed")


def test_kernels_compile_for_ampere_and_hopper(tmp_path: Path) -> None:
    assert run(COMPILED, TRITON_CACHE_DIR=str(tmp_path)).endswith("compiled")
