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
        self._step, self._rewind = step, rewind
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        if device.type == "cuda":
            self._warm_up(device)
            self._graphs = {count: self._capture(count) for count in (_UNROLLED, 1)}

    def run(self, count: int) -> None:
        """Run the step so many times; on a card, without waiting for it."""
        if not self._graphs:
            for _ in range(count):
                self._step()
            return
        for length, graph in self._graphs.items():
            for _ in range(count // length):
                graph.replay()
            count %= length

    def _warm_up(self, device: torch.device) -> None:
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self._rewind()
                self._step()
        torch.cuda.current_stream(device).wait_stream(stream)

    def _capture(self, count: int) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(count):
                self._step()
        return graph
