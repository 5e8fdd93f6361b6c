"""Replay: a step on fixed buffers, run many times; on a card captured once as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch

_UNROLLED = 20  # steps in the long graph: launching a graph costs about as much as one step of a small stack
_WARM_UPS = 3  # before a capture: libraries allocate their workspaces, Triton compiles


class Replay:
    """Runs `step`, which must not look at values on the host, allocate what outlasts it, or change its buffers' places.

    On a card, making one runs the step a few times, each after `rewind`: what it does to its buffers must not matter.
    """

    def __init__(self, step: Callable[[], None], device: torch.device, *, rewind: Callable[[], object]) -> None:
        self._step: Callable[[], None] | None = step
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        if device.type == "cuda":
            # A stream of its own, kept as long as the graphs: on a shared one, the end of another graph would take away
            # the workspace of cuBLAS that these were captured with.
            self._stream = torch.cuda.Stream(device)
            self._warm_up(step, rewind, device)
            self._capture(step)
            self._step = None  # what is captured needs it no more; a bound method would keep its buffers in a cycle

    def run(self, count: int) -> None:
        """Run the step so many times; on a card, without waiting for it."""
        if self._step is not None:
            for _ in range(count):
                self._step()
            return
        for length, graph in self._graphs.items():
            for _ in range(count // length):
                graph.replay()
            count %= length

    def _warm_up(self, step: Callable[[], None], rewind: Callable[[], object], device: torch.device) -> None:
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                rewind()
                step()
        torch.cuda.current_stream(device).wait_stream(self._stream)

    def _capture(self, step: Callable[[], None]) -> None:
        """The long graph and the short one, in one pool of memory: they never run at once."""
        pool = None
        for count in (_UNROLLED, 1):
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=self._stream):
                for _ in range(count):
                    step()
            self._graphs[count], pool = graph, graph.pool()
