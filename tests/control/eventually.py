"""Waiting for a condition that no event announces."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any


async def eventually(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What `condition` (a function or a coroutine function) returns as soon as it is true.

    Fails with its last value after so many seconds.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"still {value!r} after {seconds} s"
        await asyncio.sleep(0.01)
