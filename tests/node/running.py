"""`sidestep run` as a process in the network namespace of this thread."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from proxy.control.client import AdminClient, NotRunning
from proxy.settings import load


class Running:
    """Killed with all its workers at the end."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._client = AdminClient(Path(load(config).admin.socket))

    def __enter__(self) -> "Running":
        command = [sys.executable, "-m", "proxy", "run", "--config", str(self._config), "--log-format", "text"]
        self._process = subprocess.Popen(command, start_new_session=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def ready(self) -> bool:
        """Whether every lease is held; fails if it has ended."""
        assert self._process.poll() is None, "sidestep ended"
        try:
            return self._client.readiness() == []
        except NotRunning:
            return False

    def alive(self) -> bool:
        """Whether it answers; fails if it has ended."""
        assert self._process.poll() is None, "sidestep ended"
        try:
            return bool(self._client.status())
        except NotRunning:
            return False

    def node(self) -> dict[str, Any]:
        """The `node` of its status."""
        found: dict[str, Any] = self._client.status()["node"]
        return found

    @property
    def pid(self) -> int:
        """Of control."""
        return self._process.pid

    def ended(self) -> bool:
        """Whether control has exited."""
        return self._process.poll() is not None

    def terminate(self) -> int:
        """The exit status after SIGTERM."""
        self._process.terminate()
        return self._process.wait(30)

    def kill(self) -> None:
        """SIGKILL for every process of the run."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()

    def anything_runs(self) -> bool:
        """Whether a process of the run is left."""
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return False
        return True
