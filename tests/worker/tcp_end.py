"""One end of a TCP connection with DNS messages (RFC 1035 4.2.2), in a test's hands."""

import asyncio
import socket
import struct


class TcpEnd:
    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self.loop = loop
        self.sock = sock

    async def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = await self.loop.sock_recv(self.sock, size - len(data))
            if not more:
                raise EOFError(data)
            data += more
        return data

    async def message(self) -> bytes:
        return await self.exactly(struct.unpack("!H", await self.exactly(2))[0])

    async def ended(self) -> bool:
        """Waits for the other's end of the stream: True for a close, also by reset; False for more bytes."""
        try:
            return not await self.loop.sock_recv(self.sock, 1)
        except ConnectionResetError:
            return True

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
