"""Series: the samples of one way in one layout, and the rounds that take them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from crew import Crew, Sample, usable_cores
from lineup import Entry
from way import Way

UNDISTURBED = 0.97  # share of the wall time in which a process ran


@dataclass
class Series:
    """The samples of one way in one layout (processes x threads)."""

    entry: Entry
    way: Way
    processes: int
    threads: int
    samples: list[Sample] = field(default_factory=list)

    @classmethod
    def of(cls, entry: Entry, *, steps: int, path: str, epochs: int, layout: tuple[int, int]) -> Series:
        """An entry in a layout, not measured yet."""
        way = Way(
            entry.train,
            steps,
            path,
            recipe=entry.recipe,
            members=entry.members,
            precision=entry.precision,
            epochs=epochs,
        )
        return cls(entry, way, *layout)

    @property
    def layout(self) -> str:
        """Processes x threads."""
        return f"{self.processes} x {self.threads}"

    @property
    def seconds(self) -> list[float]:
        """Machine-seconds per trial-epoch, by round."""
        return [sample.seconds for sample in self.samples]

    @property
    def losses(self) -> list[float]:
        """Mean training loss of the last epoch, by round; none if nothing is trained."""
        return [sample.loss for sample in self.samples if sample.loss is not None]

    def measure(self, crew: Crew, round_: int) -> None:
        """One more sample; every process trains a trial of its own."""
        seeds = [round_ * len(crew) + i for i in range(len(crew))]
        self.samples.append(crew.measure([replace(self.way, seed=seed) for seed in seeds]))
        if sys.stderr.isatty():
            print(
                f"round {round_ + 1}: {self.entry.title} ({self.layout}) {self.samples[-1].wall:.3f} s", file=sys.stderr
            )


def measure_epochs(entries: Sequence[Entry], rounds: int, *, steps: int, path: str, folder: Path) -> list[Series]:
    """Rounds over all ways in all layouts, so that whatever else the machine does meets every one of them alike."""
    cores = len(usable_cores())
    layouts = [(cores, 1), (1, cores)] if cores > 1 else [(1, 1)]
    series = [
        Series.of(entry, steps=steps, path=path, epochs=1, layout=layout)
        for entry in entries
        for layout in (layouts[:1] if entry.alone else layouts)
    ]
    crews = {layout: Crew(*layout, folder) for layout in layouts}
    for round_ in range(rounds):
        for one in series:
            one.measure(crews[one.processes, one.threads], round_)
    for crew in crews.values():
        crew.close()
    return series


def measure_arms(
    entries: Sequence[Entry], rounds: int, *, steps: int, epochs: int, path: str, folder: Path
) -> list[Series]:
    """Complete arms, one trial per core; every sample in fresh processes, so that nothing is compiled beforehand."""
    layout = (len(usable_cores()), 1)
    series = [Series.of(entry, steps=steps, path=path, epochs=epochs, layout=layout) for entry in entries]
    for round_ in range(rounds):
        for one in series:
            with Crew(*layout, folder) as crew:
                one.measure(crew, round_)
    return series


def disturbed(series: Sequence[Series]) -> int:
    """Samples whose single-threaded processes were kept waiting; more threads wait for each other anyway."""
    return sum(sample.ran < UNDISTURBED for one in series if one.threads == 1 for sample in one.samples)


def check_learnt(series: Sequence[Series], limit: float) -> None:
    """SystemExit if a way has not trained: its speed would mean nothing."""
    for one in series:
        if not all(loss < limit for loss in one.losses):
            raise SystemExit(f"{one.entry.title} did not train: mean losses {one.losses}, expected less than {limit}")
