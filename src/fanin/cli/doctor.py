"""`fanin doctor`."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from fanin.cli.paths import Place


def doctor(*, data_dir: Place | None = None) -> int:
    """Say what this machine offers: torch's build, threads, matmul path and speed, data, worker processes.

    Parameters
    ----------
    data_dir
        Where to look for MNIST first.
    """
    import numpy as np  # `--help` stays fast
    import torch

    from fanin import __version__
    from fanin.engine.matmul import cpu_model

    _say("fanin", __version__)
    _say("python", f"{platform.python_version()} ({sys.executable})")
    _say("torch", f"{torch.__version__}, numpy {np.__version__}")
    _say(
        "device",
        torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu (this build or machine has no CUDA)",
    )
    _say("processor", f"{cpu_model()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}")
    _matmul()
    _data(data_dir)
    return 0 if _workers() else 1


def _say(what: str, answer: str) -> None:
    print(f"{what:<10} {answer}", flush=True)


def _matmul() -> None:
    from fanin.engine.matmul import choose, half, probe

    _say("products", f"{choose().path} is what studies on this machine take; now, one core:")
    found, (bf16, bf16_error) = probe(), half()
    for path, speed in found.gflops.items():
        _say("", f"{path:<7} {speed:5.0f} GFLOP/s in float32, relative error {found.error[path]:.1e}")
    _say("", f'{"bf16":<7} {bf16:5.0f} GFLOP/s with precision = "bf16", relative error {bf16_error:.1e}')


def _data(data_dir: Path | None) -> None:
    from fanin.datasets.mnist import find_mnist
    from fanin.errors import DataError

    try:
        dataset = find_mnist(data_dir)
        _say("mnist", f"{len(dataset.train.labels):,} + {len(dataset.test.labels):,} pictures: {dataset.source}")
    except DataError as error:
        where = "not on this machine" if data_dir is None else f"not in {data_dir}"
        _say("mnist", f"{where}; the first study that needs it fetches it\n{error}")


def _workers() -> bool:
    """Whether a worker process starts and trains a trial on digits."""
    import tempfile

    from fanin.driver import Watcher, run
    from fanin.recipe import Recipe
    from fanin.study import Arm, Study

    said: list[str] = []

    class Listener(Watcher):
        def noticed(self, message: str) -> None:
            said.append(message)

    study = Study(name="doctor", arms=(Arm(name="softmax", recipe=Recipe(hidden=(), epochs=1)),), seeds=1)
    with tempfile.TemporaryDirectory() as folder:
        done = run([study], out=folder, data="digits", jobs=1, keep_weights="none", watcher=Listener())
    _say("workers", "a worker process started and trained a trial" if not done.failed else f"FAILED: {said}")
    return not done.failed
