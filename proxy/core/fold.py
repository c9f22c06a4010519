"""What a relay keeps while no endpoint is usable: sums instead of lines, bounded in bytes and age."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Folded:
    """One value that waits, as people read it."""

    name: str
    kind: str
    value: str
    suffix: str
    """What followed the value: type, rate, tags."""
    lines: int
    """How many received lines are in it."""
