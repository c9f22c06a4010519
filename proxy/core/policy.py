"""What the configuration decides about DNS, as values: bytes and seconds, addresses as `ip:port` text.

Control makes a `DnsPolicy` from the settings and sends it to every worker; core reads it and never sees a file.
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
    """The longest that an AAAA waits for its A (design: bounded serialisation)."""
