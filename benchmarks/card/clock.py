"""Time on a card: runs between two events, one table row for each way, and steps that are captured once."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

Run = Callable[[int], object]  # does so many steps, without waiting for them
_WARM_UPS = 3  # before a capture: libraries allocate their workspaces


@dataclass(frozen=True)
class Scale:
    """How much is measured: steps in a sample, samples, steps before the first one."""

    steps: int
    rounds: int
    warm_up: int


@dataclass(frozen=True)
class Row:
    """One way: microseconds per trial-step in every round, seconds of preparation, and the mean loss at the end.

    preparation: everything before the first sample: initialisation, compilation, capture, warm-up. error: why nothing
    else is known.
    """

    way: str
    members: int
    precision: str
    samples: tuple[float, ...] = ()
    preparation: float | None = None
    loss: float | None = None
    error: str | None = None

    @property
    def us(self) -> float | None:
        """Microseconds per trial-step: the median."""
        return median(self.samples) if self.samples else None


def measured(
    way: str,
    members: int,
    precision: str,
    prepare: Callable[[], tuple[Run, Callable[[], float]]],
    *,
    scale: Scale,
    device: torch.device,
) -> Row:
    """The row of a way: `prepare` gives its steps and a function for the loss. A way that fails says so in its row."""
    begun = time.perf_counter()
    try:
        run, loss = prepare()
        run(scale.warm_up)
        wait(device)
        preparation = time.perf_counter() - begun
        taken = [seconds(lambda: run(scale.steps), device) for _ in range(scale.rounds)]
        samples = tuple(each / scale.steps / members * 1e6 for each in taken)
        return Row(way, members, precision, samples, preparation, loss())
    except Exception as error:  # libraries raise what they like; the other ways are to be measured nevertheless
        return Row(way, members, precision, error=told(error))
    finally:
        run = loss = None
        gc.collect()  # what holds a graph may be a cycle, and its memory is wanted by the next
        if device.type == "cuda":
            torch.cuda.empty_cache()


def told(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Seconds from the start of what `run` launches to its end, on the device."""
    wait(device)
    if device.type != "cuda":
        begun = time.perf_counter()
        run()
        return time.perf_counter() - begun
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    wait(device)
    return start.elapsed_time(end) / 1e3


def wait(device: torch.device) -> None:
    """Until the device has done everything."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def captured(step: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """A step on fixed buffers as a CUDA graph; without a card the step itself.

    Warm-up and capture are on a stream of this graph's own: a graph that is destroyed frees the workspace that cuBLAS
    has for its stream, which other graphs captured there would go on using (pytorch issue 193402).
    """
    if device.type != "cuda":
        return step
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            step()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        step()
    return graph.replay
