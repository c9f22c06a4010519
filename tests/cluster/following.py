"""An informer at work in a test, with short waits."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from proxy.cluster.access import Access
from proxy.cluster.informer import Informer
from proxy.cluster.saved import SavedSnapshot
from proxy.cluster.timing import Timing
from tests.control.eventually import eventually

T = TypeVar("T")

STATSD = "monitoring/statsd"
QUICK = Timing(connect=2.0, answer=5.0, first_word=2.0, first_backoff=0.01, most_backoff=0.1, save_every=0.0)
"""Waits that a test can sit out; nothing is silent for too long."""


class Follower:
    """An informer, and what it said at each change."""

    def __init__(
        self, access: Access, *services: str, timing: Timing = QUICK, saved: SavedSnapshot | None = None
    ) -> None:
        self.history: list[set[str]] = []
        self.informer = Informer(access, services or (STATSD,), self._changed, timing=timing, saved=saved)

    def _changed(self) -> None:
        self.history.append(self.addresses())

    def addresses(self, service: str = "") -> set[str]:
        """All addresses that are known now, or those of one Service."""
        return {
            endpoint.address
            for one in self.informer.slices()
            if service in ("", f"{one.namespace}/{one.service}")
            for endpoint in one.endpoints
        }

    async def until(self, condition: Callable[[], T]) -> T:
        """Wait until it is true, at most half a minute."""
        return await eventually(condition, 30.0)

    async def knows(self, *addresses: str) -> None:
        """Wait until these are known and no others."""
        await self.until(lambda: self.addresses() == set(addresses))

    async def synced(self) -> None:
        await self.until(lambda: self.informer.synced)


@contextlib.asynccontextmanager
async def running(informer: Informer) -> AsyncIterator[None]:
    """It runs for as long as the block does, and must not have ended by then."""
    task = asyncio.ensure_future(informer.run())
    try:
        yield
    finally:
        if not task.cancel():
            task.result()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def following(
    access: Access, *services: str, timing: Timing = QUICK, saved: SavedSnapshot | None = None
) -> AsyncIterator[Follower]:
    """A follower that runs for as long as the block does."""
    follower = Follower(access, *services, timing=timing, saved=saved)
    async with running(follower.informer):
        yield follower
