"""Which matrix-product path this machine should take: measured once, by speed and by error, and remembered.

PyTorch's float32 products go to its BLAS ("blas") or, when lower internal precision is allowed, to oneDNN ("onednn").
On some CPUs oneDNN is twice as fast and just as exact; on CPUs with AMX the same switch really computes in bfloat16. So
the error decides first, and the path is recorded with every trial.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from fanin.recipe import digest

PATHS: dict[str, str] = {"blas": "highest", "onednn": "medium"}
_SETTINGS = PATHS | {"tf32": "high"}  # a card's TensorFloat-32: no path of float32's, but a precision of its own

# (batch, in, out) of the lab's networks
_SHAPES = ((100, 784, 256), (100, 256, 256), (100, 784, 512), (100, 512, 512))
_ROUNDS = 5
_GAIN = 1.15  # a smaller gain is within the noise of the measurement, and not worth other bits than torch's default
_ERROR = 4.0  # times the error of BLAS: both are float32 sums in different orders


@dataclass(frozen=True)
class MatmulProbe:
    """The chosen path, and speed (GFLOP/s of one core) and relative error of both."""

    path: str
    gflops: dict[str, float]
    error: dict[str, float]


def use(path: str) -> None:
    """Send this process's float32 products down `path`, or to TensorFloat-32 ("tf32")."""
    torch.set_float32_matmul_precision(_SETTINGS[path])


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Within, this process's float32 products are computed as a recipe's `precision` says, then as before."""
    before = torch.get_float32_matmul_precision()
    if name == "tf32":
        use("tf32")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def in_use() -> str:
    """The path this process's float32 products take."""
    precision = torch.get_float32_matmul_precision()
    return next(name for name, setting in _SETTINGS.items() if setting == precision)


def choose(*, refresh: bool = False) -> MatmulProbe:
    """The remembered choice for this processor and this torch, or a new measurement, remembered if possible."""
    file = _cache_file()
    if not refresh:
        try:
            return MatmulProbe(**json.loads(file.read_text()))
        except (OSError, ValueError, TypeError):
            pass  # none yet, or not readable: measure
    found = probe()
    _remember(file, found)
    return found


def probe() -> MatmulProbe:
    """Measure both paths with one thread on the shapes of the lab's networks (about half a second).

    The paths take turns and the best of several tries counts, so that a busy machine does not decide.
    """
    threads, before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(1)
    seconds = dict.fromkeys(PATHS, 0.0)
    errors = dict.fromkeys(PATHS, 0.0)
    try:
        for shape in _SHAPES:
            best = dict.fromkeys(PATHS, float("inf"))
            for _ in range(_ROUNDS):
                for path in PATHS:
                    use(path)
                    taken, error = _measure(*shape)
                    best[path] = min(best[path], taken)
                    errors[path] = max(errors[path], error)
            for path in PATHS:
                seconds[path] += best[path]
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(before)
    speeds = {path: _flop() / seconds[path] / 1e9 for path in PATHS}
    exact = errors["onednn"] <= _ERROR * errors["blas"]
    path = "onednn" if exact and speeds["onednn"] >= _GAIN * speeds["blas"] else "blas"
    return MatmulProbe(path, speeds, errors)


def half() -> tuple[float, float]:
    """Speed (GFLOP/s of one core) and relative error of products in bfloat16, which `precision = "bf16"` takes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        measured = [_measure(*shape, dtype=torch.bfloat16) for shape in _SHAPES]
    finally:
        torch.set_num_threads(threads)
    return _flop() / sum(seconds for seconds, _ in measured) / 1e9, max(error for _, error in measured)


def _flop() -> float:
    return sum(2.0 * batch * fan_in * fan_out for batch, fan_in, fan_out in _SHAPES)


def _measure(batch: int, fan_in: int, fan_out: int, dtype: torch.dtype = torch.float32) -> tuple[float, float]:
    """Seconds of one product on the path in use, and its relative error."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, batch, fan_in, generator=generator)
    w = torch.randn(1, fan_out, fan_in, generator=generator)
    exact = torch.bmm(x.double(), w.double().transpose(1, 2))
    x, w, out = x.to(dtype), w.to(dtype), torch.empty(1, batch, fan_out, dtype=dtype)
    seconds = best_seconds(lambda: torch.bmm(x, w.transpose(1, 2), out=out))
    return seconds, float((out - exact).norm() / exact.norm())


def best_seconds(run: Callable[[], object], *, budget: float = 0.01) -> float:
    """Least time of one call within `budget` seconds of trying, after a warm-up."""
    run()
    best, end = float("inf"), time.perf_counter() + budget
    while (start := time.perf_counter()) < end:
        for _ in range(5):
            run()
        best = min(best, (time.perf_counter() - start) / 5)
    return best


def cpu_model() -> str:
    """The processor's name, as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _cache_file() -> Path:
    from platformdirs import user_cache_path  # not needed by workers

    machine = digest([cpu_model(), version("torch"), torch.backends.cpu.get_cpu_capability()])
    return user_cache_path("fanin") / f"matmul-{machine}.json"


def _remember(file: Path, found: MatmulProbe) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as out:
            json.dump(asdict(found), out)
        os.replace(out.name, file)  # noqa: PTH105 - atomic on every system
    except OSError:
        pass  # measured again next time; a study goes on with the path that its first trials took
