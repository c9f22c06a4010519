"""The reference relay, asyncio-dgram on uvloop: `python -m benchmarks.dgram_relay LISTEN ENDPOINT`.

It does what a first attempt with the library does: one datagram received, one sent.
"""

import asyncio
import socket
import sys

import asyncio_dgram

RECEIVE_BUFFER = 4 << 20


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


async def relay(listen: str, endpoint: str) -> None:
    """Send on whatever comes, for ever."""
    incoming = await asyncio_dgram.bind(_address(listen))
    receiving = incoming.socket
    try:
        receiving.setsockopt(socket.SOL_SOCKET, 33, RECEIVE_BUFFER)  # SO_RCVBUFFORCE, which socket doesn't name
    except PermissionError:
        receiving.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    outgoing = await asyncio_dgram.connect(_address(endpoint))
    while True:
        datagram, _ = await incoming.recv()
        await outgoing.send(datagram)


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(relay(*sys.argv[1:]))
    else:
        uvloop.run(relay(*sys.argv[1:]))
