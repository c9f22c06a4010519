"""Asks every listener a real question, as a pod would, to know whether the proxy is ready.

A relay answers nobody; but a datagram that is the secret of this run it sends back.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import asyncio_dgram

from proxy.control.sockets import ListenSockets, Transport, split_address

if TYPE_CHECKING:
    from proxy.control.node import NodeKeeper

PROBE_LIMIT = 1.0
CACHED_FOR = 1.0
QUESTION = bytes.fromhex("0100 0001 0000 0000 0000 09 6c6f63616c686f7374 00 0001 0001")
"""RD=1, `localhost. A`: answered by the proxy itself (P30), so no upstream is asked. The ID goes in front."""


def new_secret() -> str:
    """What relays send back, in this run only. No line begins with NUL, so a relay need not look at every one."""
    return f"\0sidestep-probe:{secrets.token_hex(16)}"


class Readiness:
    """Whether every listener answers; asked at most once a second, however many want to know.

    Those with a lease are asked all the time by `node` already, and only by it: without the mark of its questions the
    kernel would have others answer where there is no lease.
    """

    def __init__(
        self, dns: ListenSockets, relay: ListenSockets, secret: str, node: "NodeKeeper | None" = None
    ) -> None:
        self._dns = dns
        self._relay = relay
        self._node = node
        self._secret = secret.encode()
        self._asked = -CACHED_FOR
        self._failures: dict[str, str] = {}
        self._lock = asyncio.Lock()

    async def failures(self) -> dict[str, str]:
        """Reasons by listener (`127.0.0.1:53/udp`); empty when all of them answer.

        A relay's Unix sockets are not asked: what its worker does there shows at its other listeners and heartbeat.
        """
        async with self._lock:
            if time.monotonic() - self._asked >= CACHED_FOR:
                leased = set() if self._node is None else self._node.leased()
                asked = {
                    f"{address}/{transport}": probe(address, transport)
                    for address, transport in self._dns.listeners
                    if f"{address}/{transport}" not in leased
                }
                for address, transport in self._relay.listeners:
                    if transport == "udp" and f"{address}/udp" not in leased:
                        asked[f"{address}/udp"] = probe_relay(address, self._secret)
                reasons = await asyncio.gather(*asked.values())
                self._failures = {
                    listener: reason for listener, reason in zip(asked, reasons, strict=True) if reason is not None
                }
                self._asked = time.monotonic()
            return self._failures | ({} if self._node is None else self._node.not_held())


async def probe(address: str, transport: Transport) -> str | None:
    """Why this DNS listener is not answering, or None: any rcode is an answer."""
    query = secrets.token_bytes(2) + QUESTION
    reply = await _ask(address, _ask_udp if transport == "udp" else _ask_tcp, query)
    if isinstance(reply, str):
        return reply
    if len(reply) < 12 or reply[:2] != query[:2] or not reply[2] & 0x80:
        return "the answer was not one to our question"
    return None


async def probe_relay(address: str, secret: bytes) -> str | None:
    """Why this relay's listener is not reading, or None."""
    reply = await _ask(address, _ask_udp, secret)
    if isinstance(reply, str):
        return reply
    return None if reply == secret else "the answer was not our secret"


async def _ask(address: str, ask: Callable[[str, int, bytes], Awaitable[bytes]], query: bytes) -> bytes | str:
    """The reply, or the reason why there is none. A wildcard is asked on loopback."""
    host, port = split_address(address)
    try:
        async with asyncio.timeout(PROBE_LIMIT):
            return await ask(loopback_for(host), port, query)
    except TimeoutError:
        return f"no answer within {PROBE_LIMIT:g} s"
    except (OSError, EOFError) as error:
        return str(error) or type(error).__name__


def loopback_for(host: str) -> str:
    """The address on which this machine reaches a listener on `host`, which may be a wildcard."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


async def _ask_udp(host: str, port: int, query: bytes) -> bytes:
    stream = await asyncio_dgram.connect((host, port))
    try:
        await stream.send(query)
        reply, _ = await stream.recv()
        return bytes(reply)
    finally:
        stream.close()


async def _ask_tcp(host: str, port: int, query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(len(query).to_bytes(2, "big") + query)
        length = int.from_bytes(await reader.readexactly(2), "big")
        return await reader.readexactly(length)
    finally:
        writer.close()
