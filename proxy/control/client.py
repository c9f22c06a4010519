"""Asks a running sidestep over its admin socket: for the commands that need one, and for the run that succeeds it."""

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from proxy.control.errors import CannotRun


class NotRunning(CannotRun):
    """Nobody answers on the admin socket, or not sensibly; the text says which socket and what to do."""


class AdminClient:
    """One request per call, each within `limit` seconds."""

    def __init__(self, path: Path, limit: float = 10.0) -> None:
        self._path = path
        self._limit = limit

    def status(self) -> dict[str, Any]:
        """`/status.json`. Raises NotRunning."""
        return self._ask("GET", "/status.json")[1]

    def readiness(self) -> list[str]:
        """Why the run is not ready; empty when it is. Raises NotRunning."""
        reasons = self._ask("GET", "/readyz")[1].get("reasons", [])
        return [str(reason) for reason in reasons]

    def explain(self, name: str, qtype: str) -> dict[str, Any]:
        """The steps of one question, under `steps`. Raises NotRunning, and CannotRun for what is no question."""
        return self._explain("/explain", {"name": name, "type": qtype})

    def explain_statsd(self, line: str) -> dict[str, Any]:
        """What each relay makes of one line, under `relays`. Raises NotRunning."""
        return self._explain("/explain-statsd", {"line": line})

    def drain(self, instance: str | None) -> dict[str, int] | None:
        """Take the run out of the packets' path; the packets that still came, by listener, or None if `instance` is
        not what runs. Raises NotRunning, and CannotRun where nothing can be drained."""
        code, answer = self._ask("POST", "/drain", {"instance": instance} if instance else None)
        if answer.get("successor"):
            return None
        if code != 200:
            raise CannotRun(str(answer.get("error", code)))
        return dict(answer["still_arriving"])

    def undrain(self) -> None:
        """Let it back into the path. Raises NotRunning, and CannotRun where nothing can be drained."""
        code, answer = self._ask("POST", "/undrain")
        if code != 200:
            raise CannotRun(str(answer.get("error", code)))

    def hand_over(self) -> str:
        """The path of the socket over which the run gives its listening sockets. Raises NotRunning."""
        code, answer = self._ask("POST", "/handover")
        if code != 200:
            raise NotRunning(f"the sidestep at {self._path} hands nothing over: {answer.get('error', code)}")
        return str(answer["socket"])

    def _explain(self, path: str, asked: dict[str, str]) -> dict[str, Any]:
        code, answer = self._ask("POST", path, asked)
        if code == 400:
            raise CannotRun(str(answer.get("error")))
        if code != 200:
            raise NotRunning(f"the sidestep at {self._path} says: {answer.get('error', code)}")
        return answer

    def _ask(self, method: str, path: str, body: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
        connection = _UnixConnection(self._path, self._limit)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        except FileNotFoundError as error:
            raise NotRunning(f"no sidestep runs here: there is no socket {self._path}") from error
        except ConnectionRefusedError as error:
            raise NotRunning(f"no sidestep runs here: nobody listens on {self._path}") from error
        except PermissionError as error:
            raise NotRunning(f"{self._path} may only be opened by the user that runs sidestep, or root") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotRunning(f"the sidestep at {self._path} does not answer: {error}") from error
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, limit: float) -> None:
        super().__init__("localhost", timeout=limit)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
