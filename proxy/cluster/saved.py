"""The last known slices on disk, so that a restart while the API server is away begins with them.

One small file, replaced whole. It is only ever a help: what can't be read or written costs one warning.
"""

import logging
import os
from pathlib import Path

import msgspec

from proxy.cluster.objects import ip_of, port_flaw
from proxy.core.endpoints import Service, Slice

FORMAT = 1
MOST_BYTES = 64 * 1024 * 1024

_log = logging.getLogger("sidestep.cluster")


class SavedNamespace(msgspec.Struct, frozen=True):
    """What was known of one namespace."""

    at: float
    """Unix time at which it was true."""
    version: str
    slices: tuple[Slice, ...]
    services: dict[str, Service]


class _Head(msgspec.Struct):
    format: int
    server: str


class _Content(_Head):
    namespaces: dict[str, SavedNamespace]


class SavedSnapshot:
    """The file at `path`; `server` tells one cluster's from another's."""

    def __init__(self, path: Path, server: str, *, most_bytes: int = MOST_BYTES) -> None:
        self._path = path
        self._server = server
        self._most = most_bytes
        self._writes = True

    def load(self) -> dict[str, SavedNamespace]:
        """What was saved, by namespace; empty if there is nothing that can be used."""
        try:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_uid != os.geteuid():
                    raise ValueError("it belongs to another user")
                content = file.read(self._most + 1)
            if len(content) > self._most:
                raise ValueError(f"larger than {self._most} bytes")
            head = msgspec.json.decode(content, type=_Head)
            if head.format != FORMAT:
                raise ValueError(f"its format is {head.format}, not {FORMAT}")
            if head.server != self._server:
                raise ValueError(f"it is of {head.server[:200]}")
            namespaces = msgspec.json.decode(content, type=_Content).namespaces
            for kept in namespaces.values():
                for found in kept.slices:
                    _check(found)
            return namespaces
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            _log.warning("%s: saved endpoints are not used: %s", self._path, error)
            return {}

    def write(self, namespaces: dict[str, SavedNamespace]) -> bool:
        """Replace the file; may block, so call it off the event loop. False if it did not work, warned of once."""
        content = msgspec.json.encode(_Content(FORMAT, self._server, namespaces))
        try:
            self._replace(content)
        except OSError as error:
            if self._writes:
                _log.warning("%s: endpoints are not saved: %s", self._path, error)
            self._writes = False
            return False
        self._writes = True
        return True

    def _replace(self, content: bytes) -> None:
        beside = self._path.with_name(f".{self._path.name}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(beside, flags, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(beside, self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _check(found: Slice) -> None:
    """Raises ValueError for what was never read from a server."""
    for endpoint in found.endpoints:
        ip_of(endpoint.address, found.family)
    for port in found.ports:
        if flaw := port_flaw(port.number):
            raise ValueError(flaw)
