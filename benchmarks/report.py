"""How measurements are told: medians with their spread, aligned columns, and what they were made on."""

import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from tests import peers


def spread(values: Sequence[float], digits: int = 1) -> str:
    """`median (least-most)`; a dash where nothing was measured."""
    if not values:
        return "-"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The ratio in each round, as a spread."""
    return spread([mine / other for mine, other in zip(ours, theirs, strict=True)], 2)


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns aligned by spaces, the first to the left and the rest to the right."""
    lines = [heading, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heading))]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        ).rstrip()
        for line in lines
    )


def machine(kinds: Mapping[str, peers.Kind]) -> str:
    """CPU, kernel, interpreter, the versions of these programs and the load at the start."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    try:
        loop = f"uvloop {metadata.version('uvloop')}"
    except metadata.PackageNotFoundError:
        loop = "asyncio"
    versions = [f"{name}: {kind.version()}" for name, kind in kinds.items() if kind.installed()]
    missing = [f"{name}: not installed, left out" for name, kind in kinds.items() if not kind.installed()]
    return "\n".join(
        [
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, load average {os.getloadavg()[0]:.2f}",
            f"{cpu}, {os.cpu_count()} CPUs, Linux {platform.release()}",
            f"Python {platform.python_version()}, {loop}",
            *versions,
            *missing,
        ]
    )
