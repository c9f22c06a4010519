"""The configuration that is in force and the files it came from: read at start, and read again when they changed.

A configuration that is wrong never replaces one that was right.
"""

import hashlib
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.cluster.access import Access, AccessError, from_settings, in_cluster
from proxy.cluster.files import read_endpoints_file
from proxy.cluster.kubeconfig import from_kubeconfig
from proxy.control.errors import CannotRun
from proxy.core.endpoints import Slice
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
    nameservers: Mapping[str, tuple[str, ...]]
    """What each resolv.conf names."""
    listen: tuple[str, ...]
    """Of DNS."""
    relay_listen: Mapping[str, str]
    """The relay's name by listening address."""
    access: Access | None
    """How the API server is reached, where Services are named and no file has their endpoints."""
    slices: tuple[Slice, ...] | None
    """What the endpoints_file says; None without one."""
    files: tuple[Path, ...]
    """What it was read from; a change of any of them is a reason to read again."""
    digest: str
    """SHA-256 of the file; empty without one."""

    @property
    def dns_workers(self) -> int:
        return self.settings.workers.dns if self.settings.dns else 0

    @property
    def relay_workers(self) -> int:
        return self.settings.workers.relay if self.settings.udp else 0

    def says_the_same(self, other: "Loaded") -> bool:
        """But for the endpoints."""
        return (self.digest, self.nameservers) == (other.digest, other.nameservers)


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
    """Read the file, and each file that it names, which `watch` is told of before. Raises CannotRun."""
    settings, digest = read_settings(path)
    named = [*settings.resolv_conf_paths, *filter(None, [settings.endpoints_file])]
    files = tuple(filter(None, [path, *map(Path, named)]))
    watch(files)
    if settings.nothing_on:
        raise CannotRun(
            f"{path} turns nothing on: it needs a dns section (`dns: {{}}` has all the defaults) or a udp section"
        )
    listen = settings.dns.listen if settings.dns else ()
    if path is None and not _has_ipv6():
        listen = tuple(address for address in listen if not address.startswith("["))
    return Loaded(
        settings,
        {name: _nameservers(name, settings) for name in settings.resolv_conf_paths},
        listen,
        {address: relay.name for relay in settings.udp for address in relay.listen},
        _access(settings),
        slices_of(settings),
        files,
        digest,
    )


def _access(settings: Settings) -> Access | None:
    return access_of(settings) if settings.wanted_ports and settings.endpoints_file is None else None


def access_of(settings: Settings) -> Access:
    """How the API server is reached. Raises CannotRun."""
    kubernetes = settings.kubernetes
    try:
        if kubernetes.kubeconfig is not None:
            return from_kubeconfig(Path(kubernetes.kubeconfig))
        if kubernetes.server is not None:
            return from_settings(kubernetes.server, kubernetes.token_file, kubernetes.ca_file)
        return in_cluster(os.environ)
    except (AccessError, OSError) as error:
        services = ", ".join(dict.fromkeys(wanted.service for wanted in settings.wanted_ports))
        of = f" for the endpoints of {services}" if services else ""
        raise CannotRun(f"cannot ask an API server{of}: {error}") from error


def slices_of(settings: Settings) -> tuple[Slice, ...] | None:
    """What the endpoints_file says now; None without one. Raises CannotRun."""
    if settings.endpoints_file is None:
        return None
    try:
        return read_endpoints_file(settings.endpoints_file)
    except SettingsError as error:
        raise CannotRun(f"the endpoints are wrong:\n{error}") from error
    except SettingsUnreadable as error:
        raise CannotRun(str(error)) from error


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
