"""The server behind every server that is measured: answers any name over UDP and TCP and counts what it was asked.

Run as a process of its own. `nx`, `silent` and `slow` as a name's label make it say NXDOMAIN, nothing, or answer
100 ms later. Commands on stdin, one JSON line back for each: `count NAME` (all types), `total`, `reset`.
"""

import asyncio
import contextlib
import json
import struct
import sys
from collections import Counter
from typing import Any, cast

TTL = 3600
ADDRESSES = [bytes((192, 0, 2, last)) for last in (1, 2, 3)]
A = 1
NXDOMAIN = 3
SOA = struct.pack("!HHHIH", 0xC00C, 6, 1, TTL, 22) + b"\0\0" + struct.pack("!5I", 1, 3600, 600, 86400, TTL)


class Upstream:
    """Answers questions and remembers how often each name was asked for."""

    def __init__(self) -> None:
        self.counts: Counter[bytes] = Counter()

    def answer(self, query: bytes) -> tuple[bytes, float] | None:
        """The reply and the seconds to hold it back, or None to stay silent. Only well-formed questions come here."""
        end = query.find(b"\0", 12)
        if end < 0 or len(query) < end + 5 or query[2] & 0x80:
            return None
        name = query[12:end].lower()
        qtype = int.from_bytes(query[end + 1 : end + 3], "big")
        self.counts[name] += 1
        if b"\x06silent" in name:
            return None
        question = query[12 : end + 5]
        delay = 0.1 if b"\x04slow" in name else 0.0
        rcode = NXDOMAIN if b"\x02nx" in name else 0
        if rcode or qtype != A:
            body, counts = SOA, (1, 0, 1, 0)
        else:
            body = b"".join(b"\xc0\x0c\0\1\0\1" + struct.pack("!IH", TTL, 4) + address for address in ADDRESSES)
            counts = (1, len(ADDRESSES), 0, 0)
        return query[:2] + bytes((0x81, 0x80 | rcode)) + struct.pack("!4H", *counts) + question + body, delay

    def command(self, words: list[str]) -> object:
        """Carry out one command and return its result."""
        if words[0] == "reset":
            self.counts.clear()
        elif words[0] == "count":
            labels = words[1].lower().rstrip(".").split(".")
            return self.counts[b"".join(bytes((len(label),)) + label.encode() for label in labels)]
        return self.counts.total()


class Udp(asyncio.DatagramProtocol):
    """The upstream over UDP."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        answer = self._upstream.answer(data)
        if answer is None:
            return
        reply, delay = answer
        if delay:
            asyncio.get_running_loop().call_later(delay, self._transport.sendto, reply, addr)
        else:
            self._transport.sendto(reply, addr)


async def serve_tcp(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The upstream over TCP, one connection; answers may overtake each other."""

    def write(reply: bytes) -> None:
        if not writer.is_closing():
            writer.write(struct.pack("!H", len(reply)) + reply)

    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            answer = upstream.answer(await reader.readexactly(length))
            if answer is not None:
                asyncio.get_running_loop().call_later(answer[1], write, answer[0])
    writer.close()


async def main(address: str) -> None:
    """Serve until stdin ends."""
    host, _, port = address.rpartition(":")
    upstream = Upstream()
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: Udp(upstream), local_addr=(host, int(port)))
    await asyncio.start_server(lambda reader, writer: serve_tcp(upstream, reader, writer), host, int(port))
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    print("ready", flush=True)
    while words := (await commands.readline()).decode().split():
        print(json.dumps(upstream.command(words)), flush=True)


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main(sys.argv[1]))
    else:
        uvloop.run(main(sys.argv[1]))
