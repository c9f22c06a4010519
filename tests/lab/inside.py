"""A place for the lab's processes that is no network namespace: this one, so that no root is needed."""

import subprocess
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Here:
    name: str

    def spawn(self, *words: str, **options: Any) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(words, **options)
