"""A real question to one listener, as a pod would ask it.

A relay answers nobody; but a datagram that is the secret of this run it sends back.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import asyncio_dgram

from proxy.control.sockets import Transport, host_and_port

PROBE_LIMIT = 1.0
QUESTION = bytes.fromhex("0100 0001 0000 0000 0000 09 6c6f63616c686f7374 00 0001 0001")
"""RD=1, `localhost. A`: answered by the proxy itself (P30), so no upstream is asked. The ID goes in front."""


def new_secret() -> str:
    """What relays send back, in this run only. No line begins with NUL, so a relay need not look at every one."""
    return f"\0sidestep-probe:{secrets.token_hex(16)}"


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
    host, port = host_and_port(address)
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
