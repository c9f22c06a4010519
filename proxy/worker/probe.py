"""The active health probe: one question to one upstream, through asyncio-dgram, off the packet path."""

import asyncio
import secrets
import socket

import asyncio_dgram

from proxy.worker.upstream_try import MIN_MESSAGE, socket_address


async def probe(address: str, question: bytes, timeout: float) -> bytes | None:  # noqa: ASYNC109
    """The upstream's reply to `question`, of any rcode; None when it is silent or cannot be reached.

    A random ID replaces the first two bytes of `question`; the reply is returned as it came. A refusal shows
    as silence: asyncio-dgram raises it from the next call only, which is also why each probe has a stream.
    """
    host, _, port = address.rpartition(":")
    message = secrets.token_bytes(2) + question[2:]
    try:
        _check_route(address)
        async with asyncio.timeout(timeout):
            stream = await asyncio_dgram.connect((host.removeprefix("[").removesuffix("]"), int(port)))
            try:
                await stream.send(message)
                while True:
                    reply: bytes
                    reply, _ = await stream.recv()
                    if len(reply) >= MIN_MESSAGE and reply[:2] == message[:2] and reply[2] & 0x80:
                        return reply
            finally:
                stream.close()
    except (OSError, TimeoutError, asyncio_dgram.TransportClosed):
        return None


def _check_route(address: str) -> None:
    """Raise OSError for an address that a socket can't connect to: uvloop would then leave its own unclosed."""
    family, peer = socket_address(address)
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect(peer)
