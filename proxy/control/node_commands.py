"""`sidestep plan` and `sidestep cleanup`: what a run would do to this node's kernel, and all of it undone."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from proxy.control.child import worker_user
from proxy.control.claim import holder
from proxy.control.configuration import load, read_settings
from proxy.control.endpoints import SNAPSHOT_FILE, Endpoints
from proxy.control.errors import CannotRun
from proxy.control.node_listeners import node_listeners
from proxy.control.nodelocal import in_the_way
from proxy.control.text import untracked_advice
from proxy.node import addresses, kernel, nodelocal
from proxy.node import plan as plans
from proxy.node.nft import NodeError
from proxy.node.table import NodeListener
from proxy.settings import Settings
from proxy.settings.units import UNIX


class Planned:
    """What a start with this configuration would do now. It asks no API server: endpoints are the last known ones."""

    def __init__(self, path: Path | None) -> None:
        """Raises CannotRun."""
        loaded = load(path)
        self.manage = loaded.settings.node.manage
        if not self.manage:
            return
        endpoints = Endpoints(lambda: None)
        endpoints.follow(loaded)
        node = loaded.settings.node
        with _told():
            interface = addresses.usable_interface(node.interface)
            self._found = kernel.found()
            listeners = tuple(node_listeners(loaded, endpoints))
            self._wanted = plans.Wanted(listeners, "serving", node.lease, interface, "planned", worker_user())
            self._plan = plans.plan(self._wanted, self._found)
            self._stay = plans.things_that_stay(self._wanted, self._found, addresses.our_links(interface))
            self._untracked = nodelocal.untracked(listeners)
        self._waiting_for = in_the_way(loaded.listen)

    def text(self) -> Iterator[str]:
        """Lines for people."""
        if self.manage:
            yield from plans.as_text(self._wanted, self._found, self._plan, self._stay)
            if self._waiting_for:
                yield f"{self._waiting_for} serves now: a start waits for it to leave"
            if self._untracked:
                yield untracked_advice(self._untracked)
        else:
            yield "node.manage is off: nothing would be set up in the kernel"

    def json(self) -> dict[str, Any]:
        """The same for programs."""
        if self.manage:
            told = plans.as_json(self._wanted, self._found, self._plan, self._stay)
            return {"manage": True, **told, "waiting_for": self._waiting_for, "untracked": self._untracked}
        return {"manage": False, "stays": []}


def cleanup(path: Path | None) -> list[str]:
    """Take away what runs left on this node; what it was, each as a phrase. Raises CannotRun, also if one runs."""
    settings, _ = read_settings(path)
    admin = Path(settings.admin.socket)
    if _answers(admin):
        raise CannotRun(f"a sidestep runs here ({admin} answers) and would set it up again; stop it first")
    if (other := holder()) is not None:
        raise CannotRun(f"{other} runs here with another admin.socket and would set it up again; stop it first")
    with _told():
        removed = kernel.clean_up(_listeners(settings))
    return removed + [f"file {file}" for file in _remove_files(settings, admin)]


def _listeners(settings: Settings) -> list[NodeListener]:
    """Without anyone to tell it, a Service's IP is one that a zone falls back to."""
    zones = settings.dns.zones if settings.dns else ()
    services = {address for zone in zones for address in zone.fallback}
    listen = settings.dns.listen if settings.dns else ()
    relays = [address for relay in settings.udp for address in relay.listen if not address.startswith(UNIX)]
    udp = [NodeListener(address, "udp", address in services) for address in (*listen, *relays)]
    return udp + [NodeListener(address, "tcp", address in services) for address in listen]


def _remove_files(settings: Settings, admin: Path) -> Iterator[Path]:
    directory = admin.parent
    left = [directory / SNAPSHOT_FILE, directory / f".{SNAPSHOT_FILE}.new"]
    relays = (Path(one.removeprefix(UNIX)) for relay in settings.udp for one in relay.listen if one.startswith(UNIX))
    left += [path for path in (admin, *directory.glob("handover-*.sock"), *relays) if path.is_socket()]
    for file in left:
        try:
            file.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise CannotRun(f"cannot remove {file}: {error.strerror}; remove it by hand") from error
        yield file
    if directory.name.startswith("sidestep"):
        try:
            os.rmdir(directory)
        except OSError:
            return  # it holds more than what is ours, is mounted, or was never there
        yield directory


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.settimeout(2.0)
            sock.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            return False
        except OSError as error:
            if isinstance(error, TimeoutError | BlockingIOError):
                return True  # it is there and has no time
            raise CannotRun(f"cannot tell whether a sidestep runs: {path}: {error.strerror}") from error
    return True


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except NodeError as error:
        raise CannotRun(str(error)) from error
