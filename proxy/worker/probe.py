"""The active health probe: one question to one upstream, through asyncio-dgram, off the packet path."""

import asyncio
import secrets

import asyncio_dgram

_HEADER = 12


async def probe(address: str, question: bytes, timeout: float) -> bytes | None:  # noqa: ASYNC109
    """The upstream's reply to `question`, of any rcode; None when it is silent or cannot be reached.

    A random ID replaces the first two bytes of `question`; the reply is returned as it came. A refusal shows
    as silence: asyncio-dgram raises it from the next call only, which is also why each probe has a stream.
    """
    host, _, port = address.rpartition(":")
    message = secrets.token_bytes(2) + question[2:]
    try:
        async with asyncio.timeout(timeout):
            stream = await asyncio_dgram.connect((host.removeprefix("[").removesuffix("]"), int(port)))
            try:
                await stream.send(message)
                while True:
                    reply: bytes
                    reply, _ = await stream.recv()
                    if len(reply) >= _HEADER and reply[:2] == message[:2] and reply[2] & 0x80:
                        return reply
            finally:
                stream.close()
    except (OSError, TimeoutError, asyncio_dgram.TransportClosed):
        return None
