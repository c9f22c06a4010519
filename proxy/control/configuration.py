"""The configuration that is in force and the files it came from: read at start, and read again when they changed.

A configuration that is wrong never replaces one that was right.
"""

import hashlib
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.control.errors import CannotRun
from proxy.core.policy import DnsPolicy
from proxy.settings import (
    Settings,
    SettingsError,
    SettingsUnreadable,
    default_settings,
    own_listener,
    parse,
    read_resolv_conf,
)
from proxy.settings.files import read_text

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """One configuration with everything that it refers to."""

    settings: Settings
    policy: DnsPolicy
    listen: tuple[str, ...]
    workers: int
    files: tuple[Path, ...]
    """What it was read from; a change of any of them is a reason to read again."""
    digest: str
    """SHA-256 of the file; empty without one."""


class Configuration:
    """What is in force, and whether the files say something that cannot be."""

    def __init__(self, path: Path | None) -> None:
        """Raises CannotRun."""
        self.path = path
        self.error: str | None = None
        self.take(load(path))

    def take(self, loaded: Loaded) -> None:
        """From now on this one is in force."""
        self.now = loaded
        self.error = None
        self.loaded_at = time.time()

    def status(self) -> dict[str, Any]:
        """For `/status.json`."""
        return {
            "path": None if self.path is None else str(self.path),
            "sha256": self.now.digest,
            "loaded_at": round(self.loaded_at, 3),
            "error": self.error,
        }


def read_settings(path: Path | None) -> tuple[Settings, str]:
    """The settings of the file and its digest, or the defaults without one. Raises CannotRun."""
    if path is None:
        return default_settings(), ""
    try:
        text = read_text(path)
        return parse(text, str(path)), hashlib.sha256(text.encode()).hexdigest()
    except SettingsError as error:
        raise CannotRun(f"the configuration is wrong:\n{error}") from error
    except SettingsUnreadable as error:
        raise CannotRun(str(error)) from error


def load(path: Path | None, watch: Callable[[tuple[Path, ...]], None] = lambda files: None) -> Loaded:
    """Read the file, and each resolv.conf that it names, which `watch` is told of before. Raises CannotRun."""
    settings, digest = read_settings(path)
    files = tuple(filter(None, [path, *map(Path, settings.resolv_conf_paths)]))
    watch(files)
    if settings.nothing_on:
        raise CannotRun(f"{path} turns nothing on: it needs a dns section (`dns: {{}}` has all the defaults)")
    resolved = {name: _nameservers(name, settings) for name in settings.resolv_conf_paths}
    listen = settings.dns.listen if settings.dns else ()
    if path is None and not _has_ipv6():
        listen = tuple(address for address in listen if not address.startswith("["))
    return Loaded(
        settings,
        settings.dns_policy(resolved) if settings.dns else DnsPolicy(()),
        listen,
        settings.workers.dns if settings.dns else 0,
        files,
        digest,
    )


def _nameservers(name: str, settings: Settings) -> tuple[str, ...]:
    try:
        addresses = read_resolv_conf(name)
    except SettingsUnreadable as error:
        raise CannotRun(str(error)) from error
    listen = settings.dns.listen if settings.dns else ()
    ours = [address for address in addresses if own_listener(address, listen)]
    if len(ours) == len(addresses):
        raise CannotRun(
            f"{name} names only {', '.join(ours)}, which is this proxy: name other upstreams in dns.zones"
        )
    for address in ours:
        _log.warning("%s names %s, which is this proxy: it is not asked", name, address)
    return tuple(addresses)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True
