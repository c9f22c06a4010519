"""What the configuration and the endpoints decide, as values: bytes and seconds, addresses as `ip:port` text.

Control makes a `DnsPolicy` and the `RelayPolicy`s from settings and snapshot, and sends them whole to every worker;
core reads them and never sees a file.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Zone:
    """Where questions under `suffix` go; the longest suffix that matches a name wins."""

    suffix: str
    upstreams: tuple[str, ...]
    fallback: tuple[str, ...] = ()
    service: bool = False
    """The upstreams are a Kubernetes Service's endpoints (RFC 1918 reverse zones may then go to `.`)."""


@dataclass(frozen=True, slots=True)
class DnsPolicy:
    """All that a resolver needs to know; times in seconds, sizes in bytes."""

    zones: tuple[Zone, ...]
    cache_bytes: int = 32 * 1024 * 1024
    max_ttl: int = 3600
    negative_max_ttl: int = 30
    stale: int = 86400
    """How long expired data may still be served when no upstream answers (RFC 8767); 0 turns it off."""
    prefetch: bool = True
    timeout: float = 2.0
    serialize: bool = True
    hold: float = 0.25
    """The longest that an AAAA waits for its A."""


@dataclass(frozen=True, slots=True)
class RelayPolicy:
    """All that a relay worker needs to know about one UDP service; times in seconds, sizes in bytes."""

    name: str
    block: int
    """Which block of the ledger is its."""
    mode: str
    """`statsd` or `datagram`."""
    spread: str
    """`name`, `name+tags`, `source`, `packet` or `all`."""
    endpoints: tuple[str, ...] = ()
    """What may be sent to now; whether one of them refuses, the worker finds out."""
    fold_bytes: int = 8 * 1024 * 1024
    fold_age: float = 600.0
    sessions_idle: float = 60.0
    sessions_max: int = 4096
    eject: float = 5.0
    datagrams_per_second: int = 0
    """From one source (IP without port, or user of a Unix socket); 0: any number."""
    lines_per_second: int = 0
    probe: str = ""
    """The secret of this run: a datagram of exactly this text is answered with itself, and counts nowhere."""
