"""The API server's addresses where it is given by name: the last good ones serve on while DNS is down."""

import asyncio
import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult

PATIENCE = 2.0
"""The longest that DNS is waited for when addresses are known from before, in seconds."""


def needs_dns(server: str) -> bool:
    """Whether the URL's host is a name."""
    host = urlsplit(server).hostname or ""
    try:
        ip_address(host)
    except ValueError:
        return True
    return False


class RememberedAddresses(AbstractResolver):
    """Asks the inner resolver each time, and gives the last answer where that fails; `close` forgets nothing."""

    def __init__(self, inner: AbstractResolver, patience: float = PATIENCE) -> None:
        self._inner = inner
        self._patience = patience
        self._known: dict[tuple[str, int, int], list[ResolveResult]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """As the inner resolver; raises its OSError only if the host never had an address."""
        key = (host, port, family)
        known = self._known.get(key)
        try:
            async with asyncio.timeout(self._patience if known else None):
                found = await self._inner.resolve(host, port, family)
        except OSError:
            if known is None:
                raise
            return known
        self._known[key] = found or known or []
        return self._known[key]

    async def close(self) -> None:
        """Sessions close their resolver; this one outlives them."""
