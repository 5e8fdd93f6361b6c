"""What a benchmark ran on: machine and versions for its JSON, in one line for its table."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fanin.driver.run import cores


def machine() -> dict[str, Any]:
    """Processor, cores that may be used, memory, load, and the versions of what takes part."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
        **{name: version(name) for name in ("fanin", "torch", "numpy", "scipy", "scikit-learn", "cyclopts")},
    }


def in_words(found: dict[str, Any]) -> str:
    """One line for people."""
    return (
        f"{found['processor']}, {found['cores']} cores, python {found['python']}, torch {found['torch']}; "
        f"load before: {found['load']}"
    )


def save(path: Path, report: dict[str, Any]) -> None:
    """Write a report as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.machine())
