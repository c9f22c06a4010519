"""A process that answers DNS over UDP and TCP on some addresses, with its own name in each answer.

It says `ready` when it listens. A datagram that begins with NUL, a relay's probe, it sends back.
"""

import selectors
import socket
import sys
from collections.abc import Callable


def listening(address: str, kind: socket.SocketKind) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    if kind == socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, int(port)))
    if kind == socket.SOCK_STREAM:
        sock.listen(64)
    return sock


def main(name: bytes, addresses: list[str]) -> None:
    ready = selectors.DefaultSelector()

    def answer(query: bytes) -> bytes:
        return query if query[:1] == b"\0" else query[:2] + b"\x80" + query[3:12] + name

    def datagram(sock: socket.socket) -> None:
        query, client = sock.recvfrom(2048)
        sock.sendto(answer(query), client)

    def accept(sock: socket.socket) -> None:
        ready.register(sock.accept()[0], selectors.EVENT_READ, stream)

    def stream(sock: socket.socket) -> None:
        try:
            query = sock.recv(2048)
            if query:
                reply = answer(query[2:])
                sock.sendall(len(reply).to_bytes(2, "big") + reply)
                return
        except OSError:
            pass
        ready.unregister(sock)
        sock.close()

    for address in addresses:
        ready.register(listening(address, socket.SOCK_DGRAM), selectors.EVENT_READ, datagram)
        ready.register(listening(address, socket.SOCK_STREAM), selectors.EVENT_READ, accept)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        for key, _ in ready.select():
            react: Callable[[socket.socket], None] = key.data
            assert isinstance(key.fileobj, socket.socket)
            react(key.fileobj)


if __name__ == "__main__":
    main(sys.argv[1].encode(), sys.argv[2:])
