"""The configuration that is in force and the files it came from: read, and read again when they changed.

A file that is wrong never replaces one that was right.
"""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from proxy.core.policy import DnsPolicy, Zone


def read_settings(path: Path | None) -> Any:
    return SimpleNamespace(admin=SimpleNamespace(listen="127.0.0.1:9253", socket="/run/sidestep/admin.sock"))


class Configuration:
    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.settings = read_settings(path)
        self.policy = DnsPolicy((Zone(".", ("127.0.0.1:5399",)),))
        self.listen = ["127.0.0.1:5300", "[::1]:5300"]
        self.workers = 1
        self.files: list[Path] = []
        self.error: str | None = None
        self.loaded_at = time.time()
        self.digest = ""

    @classmethod
    def read(cls, path: Path | None) -> "Configuration":
        return cls(path)

    def read_again(self) -> "Configuration":
        return Configuration(self.path)

    def become(self, new: "Configuration") -> None:
        self.__dict__.update(new.__dict__)

    def status(self) -> dict[str, Any]:
        return {"path": None, "error": self.error}
