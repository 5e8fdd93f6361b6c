"""What fanin.diagnose(steps=0) costs for a large network: memory and time over those of one training step.

Run: python benchmarks/diagnosis_cost.py [--millions 100] [--rounds 3]

A perceptron of so many million parameters, batch 32. Each measurement is a process of its own: `nothing` builds network
and data, `step` takes one SGD step more (forward, backward, update), `diagnose` one diagnosis more. Memory is the peak
resident set (ru_maxrss) of the whole process; time is that of the step, or the diagnosis, alone. Linux only, where
ru_maxrss is in kilobytes.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

WIDTH, BATCH, CLASSES = 4096, 32, 10
MEMORY, TIME = 1.3, 3.0  # what a diagnosis may take over a step


def measured(way: str, millions: int) -> dict[str, float]:
    """In this process: seconds and the peak in MB."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = max(1, round(millions * 1e6 / WIDTH**2))
    hidden = [part for _ in range(layers) for part in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
    model = nn.Sequential(*hidden, nn.Linear(WIDTH, CLASSES))
    x, y = torch.randn(2 * BATCH, WIDTH), torch.randint(CLASSES, (2 * BATCH,))
    begun = time.perf_counter()
    if way == "step":
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[:BATCH]), y[:BATCH]).backward()
        optimizer.step()
    elif way == "diagnose":
        import fanin.diagnosis

        begun = time.perf_counter()  # a process loads its modules once, however much it diagnoses
        fanin.diagnosis.diagnose(model, (x, y), optimizer=torch.optim.SGD, steps=0)
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "mb": peak, "millions": sum(p.numel() for p in model.parameters()) / 1e6}


def apart(way: str, millions: int) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--way", way, "--millions", str(millions)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=["nothing", "step", "diagnose"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        print(json.dumps(measured(given.way, given.millions)))
        return
    found: dict[str, list[dict[str, float]]] = {"nothing": [], "step": [], "diagnose": []}
    for _ in range(given.rounds):
        for way, rows in found.items():
            rows.append(apart(way, given.millions))
    peak = {way: max(row["mb"] for row in rows) for way, rows in found.items()}
    took = {way: statistics.median(row["seconds"] for row in rows) for way, rows in found.items()}
    print(f"{found['step'][0]['millions']:.1f} million parameters, batch {BATCH}, {given.rounds} rounds, one thread")
    for way in found:
        print(f"  {way:9} {peak[way]:8.0f} MB peak {took[way]:8.2f} s")
    memory, seconds = peak["diagnose"] / peak["step"], took["diagnose"] / took["step"]
    print(f"  memory: {memory:.2f} times a step's, {'within' if memory <= MEMORY else 'OVER'} {MEMORY}")
    print(f"  time:   {seconds:.2f} times a step's, {'within' if seconds <= TIME else 'OVER'} {TIME}")


if __name__ == "__main__":
    main()
