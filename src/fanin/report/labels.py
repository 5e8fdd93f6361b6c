"""Direct labels beside the ends of lines, moved apart so that none covers another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Label:
    """A text at a height in [0, 1] from below: `wanted` where its line ends, `placed` where there is room."""

    text: str
    wanted: float
    colour: str
    placed: float = 0.0


def shortened(text: str, length: int) -> str:
    """The text, cut to so many characters with an ellipsis."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def spread(labels: Sequence[Label], gap: float) -> list[Label]:
    """The labels at least `gap` apart and, if they fit, within [0, 1]; each as near to its line as may be."""
    ordered = sorted(labels, key=lambda label: label.wanted)
    places = [label.wanted for label in ordered]
    clusters: list[list[int]] = []
    for i in range(len(ordered)):
        clusters.append([i])
        while len(clusters) > 1 and _low(clusters[-1], places, gap) - _high(clusters[-2], places, gap) < gap:
            clusters[-2:] = [clusters[-2] + clusters[-1]]
    found = []
    for cluster in clusters:
        low = _low(cluster, places, gap)
        found += [low + k * gap for k in range(len(cluster))]
    return [Label(x.text, x.wanted, x.colour, y) for x, y in zip(ordered, found, strict=True)]


def _low(cluster: Sequence[int], places: Sequence[float], gap: float) -> float:
    reach = (len(cluster) - 1) * gap
    middle = sum(places[i] for i in cluster) / len(cluster)
    return min(max(middle - reach / 2, 0.0), max(1.0 - reach, 0.0))


def _high(cluster: Sequence[int], places: Sequence[float], gap: float) -> float:
    return _low(cluster, places, gap) + (len(cluster) - 1) * gap
