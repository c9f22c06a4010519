"""Notices that files changed, by looking at them often: the swap of a ConfigMap's symlink counts too."""

import os
from collections.abc import Iterable
from pathlib import Path

LOOK_EVERY = 0.25

_Mark = tuple[int, int, int, int] | None


class WatchedFiles:
    """Remembers how each file looked; `look` tells whether any looks different now."""

    def __init__(self) -> None:
        self._marks: dict[Path, _Mark] = {}

    def watch(self, paths: Iterable[Path]) -> None:
        """Watch these and no others; how they look now is the base for what is not watched yet."""
        self._marks = {path: self._marks[path] if path in self._marks else _mark(path) for path in paths}

    def look(self) -> list[Path]:
        """The files that look different than at the last look, or vanished, or came."""
        changed = []
        for path, old in self._marks.items():
            new = _mark(path)
            if new != old:
                self._marks[path] = new
                changed.append(path)
        return changed


def _mark(path: Path) -> _Mark:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
