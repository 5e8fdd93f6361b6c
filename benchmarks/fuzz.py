"""Fuzz one reader for as long as wanted: only fanin's own errors may leave it, and none may take long.

With atheris (pip install 'fanin[fuzz]') the bytes are led by the branches that they reach in fanin, tomllib, zipfile,
gzip and numpy's format; without it hypothesis draws and mutates them. What is found is written beside the corpus.

    python benchmarks/fuzz.py --reader csv --minutes 10
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
INSTRUMENTED = ["fanin", "tomllib", "zipfile", "gzip", "csv", "numpy.lib.format", "numpy.lib._format_impl"]
NAMES = ("toml", "csv", "idx", "npz", "npz-array", "npz-labels", "npy", "picture", "stack", "stack-metadata", "weights")
SLOW = 5.0  # seconds of the processor: so long no file of these sizes may take
LARGEST = 8192  # bytes


def main() -> None:
    """Parse, fuzz, and exit with 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", required=True, choices=NAMES)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument(
        "--corpus", type=Path, help="a folder that keeps what reached new branches; by default none is kept"
    )
    parser.add_argument("--without-atheris", action="store_true", help="hypothesis, though atheris is there")
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory(prefix="fanin-fuzz-") as scratch:
        corpus = given.corpus or Path(scratch) / "corpus"
        corpus.mkdir(parents=True, exist_ok=True)
        fuzz = None if given.without_atheris else led_by_coverage()
        (fuzz or drawn)(given.reader, given.minutes * 60, corpus, Path(scratch))


class Watch:
    """Counts what a reader is fed, and keeps what it should not have done."""

    def __init__(self, name: str, seconds: float, findings: Path, scratch: Path) -> None:
        from tests.fuzz.readers import READERS

        from fanin.errors import FaninError

        self._read, self._mendable, self._findings = READERS[name].read, FaninError, findings
        self._folder = scratch / "files"
        self._folder.mkdir()
        self.name = name
        self.found: dict[str, Path] = {}
        for seed in READERS[name].seeds():  # what is loaded on first use is loaded before time is taken
            self._once(seed)
        self.fed = self.read = 0
        self.started = time.monotonic()
        self.until = self.started + seconds

    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self.until

    def feed(self, content: bytes) -> None:
        """Have the reader read it; keep it if another error comes of it, or if it takes long."""
        start = time.process_time()
        self.read += self._once(content)
        self.fed += 1
        if (took := time.process_time() - start) > SLOW:
            self._keep(f"slow: {took:.0f} s", content)

    def _once(self, content: bytes) -> bool:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._read(content, self._folder)
        except self._mendable:
            return False
        except Exception as error:
            self._keep(_signature(error), content)
            return False
        return True

    def _keep(self, what: str, content: bytes) -> None:
        if what not in self.found:
            path = self._findings / f"finding-{self.name}-{hashlib.sha256(content).hexdigest()[:12]}"
            path.write_bytes(content)
            self.found[what] = path
            print(f"FOUND {what}: {path}", flush=True)

    def finish(self) -> int:
        """Print the counts; the exit code."""
        minutes = (time.monotonic() - self.started) / 60
        print(f"{self.name}: {minutes:.1f} minutes, {self.fed:,} files, {self.read:,} read, {len(self.found)} findings")
        return 1 if self.found else 0


def _signature(error: BaseException) -> str:
    """The error and the last place in fanin that it passed: one finding for each."""
    trace, place = error.__traceback__, "?"
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if "fanin" in file.parts:
            place = f"{file.name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__} at {place}: {str(error)[:120]}"


def led_by_coverage() -> Callable[[str, float, Path, Path], None] | None:
    """A fuzzer by atheris (libFuzzer), or None where that is not installed."""
    try:
        import atheris
    except ImportError:
        return None

    def fuzz(name: str, seconds: float, corpus: Path, scratch: Path) -> None:
        with atheris.instrument_imports(include=INSTRUMENTED):
            watch = Watch(name, seconds, Path.cwd() if corpus.is_relative_to(scratch) else corpus.parent, scratch)
            from tests.fuzz.readers import READERS
        for i, seed in enumerate(READERS[name].seeds()):
            (corpus / f"seed-{i}").write_bytes(seed)

        def once(content: bytes) -> None:
            if watch.over():
                code = watch.finish()
                sys.stdout.flush()
                import os

                os._exit(code)  # libFuzzer takes a SystemExit for a finding
            watch.feed(content)

        options = [f"-max_len={LARGEST}", f"-max_total_time={int(seconds) + 60}", "-rss_limit_mb=4096", "-verbosity=0"]
        atheris.Setup([sys.argv[0], *options, "-close_fd_mask=0", str(corpus)], once)
        atheris.Fuzz()

    return fuzz


def drawn(name: str, seconds: float, corpus: Path, scratch: Path) -> None:
    """Arbitrary bytes and mutated valid files, drawn by hypothesis, until the time is over."""
    from hypothesis import HealthCheck, Phase, given, settings
    from tests.fuzz.mutations import files

    findings = Path.cwd() if corpus.is_relative_to(scratch) else corpus.parent
    watch = Watch(name, seconds, findings, scratch)

    @settings(
        max_examples=50,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(files(name))
    def some(content: bytes) -> None:
        if not watch.over():
            watch.feed(content)

    while not watch.over():
        some()
    sys.exit(watch.finish())


if __name__ == "__main__":
    main()
