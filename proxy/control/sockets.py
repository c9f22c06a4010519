"""Every listening socket of one kind of worker: opened once, kept while the configuration lists it, lent to workers.

A worker's death closes only the worker's copy: what clients sent meanwhile waits in the queue for the next.
"""

import ctypes
import errno
import os
import resource
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from proxy.control.errors import CannotRun
from proxy.control.owner import port_owner
from proxy.control.unix_sockets import ANY_USER, open_unix, remove_unix, take_place, unix_advice
from proxy.settings.units import UNIX
from proxy.worker.channel import Listener

Transport = Literal["udp", "tcp", "unixgram"]
Transports = Callable[[str], tuple[Transport, ...]]
"""Over what an address is listened on."""

RECEIVE_BUFFER = 4 * 1024 * 1024
"""Some 10,000 small datagrams, for the kernel counts twice that: what arrives while a worker is being replaced."""
RELAY_RECEIVE_BUFFER = 16 * 1024 * 1024
"""The same at 64,000 datagrams a second (kubernetes#139628): 0.6 s. It takes memory only while it fills."""
BACKLOG = 1024
FEWEST_DESCRIPTORS = 256
"""What a worker with a few clients and some questions in flight has open."""
_SO_RCVBUFFORCE, _SO_ATTACH_REUSEPORT_CBPF, _SO_DETACH_REUSEPORT_BPF = 33, 51, 68
_RETURN = 0x06
"""BPF_RET|BPF_K: the socket's position among those that share the port."""


def dns_transports(address: str) -> tuple[Transport, ...]:
    """Every address of DNS takes both (RFC 7766)."""
    return ("udp", "tcp")


def relay_transports(address: str) -> tuple[Transport, ...]:
    """A relay's address is `ip:port` or `unix:PATH`."""
    return ("unixgram",) if address.startswith(UNIX) else ("udp",)


@dataclass(slots=True)
class _Listening:
    transport: Transport
    sockets: list[tuple[int, socket.socket]] = field(default_factory=list)
    inode: int = 0
    """Of a Unix socket's file."""

    def close(self, address: str) -> None:
        for _, sock in self.sockets:
            sock.close()
        if self.inode:
            remove_unix(_path(address), self.inode)


class ListenSockets:
    """The open listening sockets; ids are never used twice. `setting` is the key that lists their addresses."""

    def __init__(
        self, setting: str = "dns.listen", transports: Transports = dns_transports, buffer: int = RECEIVE_BUFFER
    ) -> None:
        self._setting = setting
        self._transports = transports
        self._buffer = buffer
        self._listening: dict[tuple[str, Transport], _Listening] = {}
        self._last_id = 0

    @property
    def listeners(self) -> list[tuple[str, Transport]]:
        """Every address with each of its transports."""
        return list(self._listening)

    @property
    def addresses(self) -> list[str]:
        return list(dict.fromkeys(address for address, _ in self._listening))

    def adopt(self, address: str, transport: Transport, sock: socket.socket) -> None:
        """A socket that another run has opened is one of ours from now on, and so is its file."""
        self._last_id += 1
        listening = self._listening.setdefault((address, transport), _Listening(transport))
        listening.sockets.append((self._last_id, sock))
        if transport == "unixgram" and _path(address).is_socket():
            listening.inode = _path(address).stat().st_ino

    def abandon(self) -> None:
        """Another run has them now: closing ours takes nothing away."""
        for listening in self._listening.values():
            listening.inode = 0

    def share(self) -> None:
        """Let another run bind to the same ports (SO_REUSEPORT). What comes there is ours until `send_elsewhere`."""
        for _, transport, sock in self.opened():
            if transport != "unixgram":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)

    def send_elsewhere(self) -> None:
        """From now on new packets and connections go to the run that has bound beside these sockets, if one has."""
        for listening in self._listening.values():
            for _, sock in listening.sockets[:1]:
                with suppress(OSError):  # EINVAL: nobody has
                    select(sock, len(listening.sockets))

    def spread(self) -> None:
        """The run beside us is gone: the kernel spreads what comes over all sockets of a port again."""
        for _, _, sock in self.opened():
            with suppress(OSError):  # ENOENT: it does so already
                sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_REUSEPORT_BPF, 0)

    def take_place(self) -> None:
        """The files of sockets that were opened `beside` another run's have their paths from now on."""
        for address, transport in self._listening:
            if transport == "unixgram":
                with suppress(FileNotFoundError):
                    take_place(_path(address))

    def opened(self) -> Iterator[tuple[str, Transport, socket.socket]]:
        """All that are open, with their addresses."""
        for (address, transport), listening in self._listening.items():
            for _, sock in listening.sockets:
                yield address, transport, sock

    def open(self, addresses: Sequence[str], workers: int, *, beside: bool = False) -> None:
        """Open what is listed and not open yet: a UDP socket per worker, of others one per address.

        `beside`: another run has the same ports, shares them, and gets what comes until it sends it here. Raises
        CannotRun and opens nothing when one of them cannot be had.
        """
        opened: list[tuple[tuple[str, Transport], int, socket.socket]] = []
        try:
            for address in addresses:
                for transport in self._transports(address):
                    key = address, transport
                    listening = self._listening.setdefault(key, _Listening(transport))
                    wanted = workers if transport == "udp" else 1
                    for sock in self._open_more(listening, address, wanted, beside):
                        self._last_id += 1
                        listening.sockets.append((self._last_id, sock))
                        opened.append((key, self._last_id, sock))
        except OSError as error:
            for key, number, sock in opened:
                self._listening[key].sockets.remove((number, sock))
                sock.close()
            for key in [key for key, kept in self._listening.items() if not kept.sockets]:
                self._listening.pop(key).close(key[0])
            raise CannotRun(why_not(error, address, transport, self._setting)) from error

    def close_others(self, addresses: Sequence[str]) -> None:
        """Close what is not listed; workers close their copies when they are configured anew."""
        for (address, transport), listening in list(self._listening.items()):
            if address not in addresses:
                del self._listening[address, transport]
                listening.close(address)

    def close(self) -> None:
        self.close_others(())

    def of_worker(self, index: int, workers: int) -> list[tuple[Listener, socket.socket]]:
        """What worker number `index` of so many serves: its share of the UDP sockets, and every other one.

        Once there are more UDP sockets than workers, a worker serves several of them: none is closed, for the
        kernel may have queued something in it.
        """
        return [
            (Listener(number, address, transport), sock)
            for (address, transport), listening in self._listening.items()
            for position, (number, sock) in enumerate(listening.sockets)
            if transport != "udp" or position % workers == index
        ]

    def udp_sockets(self) -> Iterator[tuple[str, socket.socket]]:
        """Every UDP socket with its address, for the kernel's own drop counters."""
        return ((address, sock) for address, transport, sock in self.opened() if transport == "udp")

    def _open_more(self, listening: _Listening, address: str, wanted: int, beside: bool) -> Iterator[socket.socket]:
        have = len(listening.sockets)
        if listening.transport == "tcp" and not have:
            yield open_tcp(address, beside=beside)
        elif listening.transport == "unixgram" and not have:
            sock, listening.inode = open_unix(_path(address), socket.SOCK_DGRAM, ANY_USER, beside=beside)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            yield sock
        if listening.transport != "udp":
            return
        if wanted > 1:
            for _, sock in listening.sockets:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for position in range(have, wanted):
            sock = open_udp(address, self._buffer, first=position == 0 and not beside, alone=wanted == 1)
            if beside:
                select(sock, 0)
            yield sock


def open_udp(address: str, buffer: int = RECEIVE_BUFFER, *, first: bool, alone: bool) -> socket.socket:
    """A bound UDP socket with a queue of so many bytes.

    The first of several binds without SO_REUSEPORT, so that a stranger's socket is found instead of shared
    with; it takes the option afterwards, which Linux allows, and the others join it.
    """
    sock, target = _numeric(address, socket.SOCK_DGRAM)
    try:
        if not first:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(target)
        if first and not alone:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)  # as far as rmem_max goes
    except BaseException:
        sock.close()
        raise
    return sock


def open_tcp(address: str, *, beside: bool = False) -> socket.socket:
    """A listening TCP socket; all workers accept from it. `beside`: another run shares its port."""
    sock, target = _numeric(address, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if beside:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(target)
        sock.listen(BACKLOG)
        if beside:
            select(sock, 0)
    except BaseException:
        sock.close()
        raise
    return sock


def select(sock: socket.socket, position: int) -> None:
    """Of all sockets that share this one's port the kernel gives what comes to this one, in the order of their bind.

    Otherwise it spreads by the source. Raises OSError.
    """
    instruction = ctypes.create_string_buffer(struct.pack("=HBBI", _RETURN, 0, 0, position))
    program = struct.pack("HP", 1, ctypes.addressof(instruction))  # struct sock_fprog
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, program)


def host_and_port(address: str) -> tuple[str, int]:
    """`192.0.2.1:53` or `[2001:db8::1]:53` as host and port."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def raise_descriptor_limit(sockets: int) -> None:
    """Take every descriptor that we may have: each client and each question upstream costs a worker one.

    Raises CannotRun where so few are allowed that it would fail somewhere in the middle.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = FEWEST_DESCRIPTORS + 2 * sockets
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise CannotRun(
            f"only {hard} file descriptors are allowed and this configuration needs {needed}; "
            "raise `ulimit -n` or LimitNOFILE="
        )


def why_not(error: OSError, address: str, transport: Transport, setting: str) -> str:
    """What is in the way of a socket on `address`, and what to do about it."""
    if transport == "unixgram":
        return f"cannot listen on {address}: {unix_advice(error, setting)}"
    host, port = host_and_port(address)
    host, _, scope = host.partition("%")
    what = f"cannot listen on {address}/{transport}"
    if scope and isinstance(error, socket.gaierror):
        return f"{what}: this machine has no interface {scope}; change {setting}"
    match error.errno:
        case errno.EADDRINUSE:
            owner = port_owner(host, port, transport)
            if owner is not None and owner.pid == os.getpid():
                return f"{what}: another listener of this sidestep covers it; restart to change over"
            by = f" by {owner}" if owner else ""
            return f"{what}: the port is in use{by}; stop that process or choose another port in {setting}"
        case errno.EADDRNOTAVAIL:
            return (
                f"{what}: no interface of this machine has the address {host}; "
                f"add it (ip address add {host} dev {scope or 'lo'}) or change {setting}"
            )
        case errno.EAFNOSUPPORT:
            return f"{what}: this machine has no IPv6; remove the address from {setting}"
        case errno.EACCES | errno.EPERM:
            return (
                f"{what}: a port below 1024 needs root or the capability CAP_NET_BIND_SERVICE; "
                f"grant it or choose a higher port in {setting}"
            )
        case errno.EMFILE | errno.ENFILE:
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            return f"{what}: out of file descriptors (limit {limit}); raise `ulimit -n` or LimitNOFILE="
        case _:
            return f"{what}: {error.strerror or error}; change {setting}"


def _path(address: str) -> Path:
    return Path(address.removeprefix(UNIX))


def _numeric(address: str, kind: socket.SocketKind) -> tuple[socket.socket, tuple[Any, ...]]:
    host, port = host_and_port(address)
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    family, _, _, _, target = socket.getaddrinfo(host, port, type=kind, flags=flags)[0]
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    except BaseException:
        sock.close()
        raise
    return sock, target
