"""Many datagrams per system call: `recvmmsg` and `sendmmsg` through ctypes, over memory that is set up once.

It knows sockets, slots and addresses, and nothing of what the datagrams say.
"""

import ctypes
import errno
import mmap
import socket
import struct
import sys
from collections.abc import Callable
from functools import partial
from socket import MSG_DONTWAIT

Peer = tuple[str, int] | tuple[str, int, int, int]
"""An address as `socket.recvfrom` gives it: IPv4, or IPv6 with flow label and scope."""

IP_PKTINFO = 8
SO_MEMINFO = 55
_MEMINFO_DROPS = 8
_NAME_ROOM = 32
_CONTROL_ROOM = 64


class IoVec(ctypes.Structure):
    """`struct iovec`: one piece of a message."""

    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class MessageHeader(ctypes.Structure):
    """`struct msghdr` as the Linux kernel has it."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint32),
        ("pieces", ctypes.c_void_p),
        ("piece_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_uint32),
    )


class Message(ctypes.Structure):
    """`struct mmsghdr`: a header, and how long the datagram was."""

    _fields_ = (("header", MessageHeader), ("length", ctypes.c_uint32))


# PyDLL: both calls return at once (MSG_DONTWAIT), so giving up the GIL around them would only cost.
# No argtypes: ctypes passes plain ints and ready-made byref() objects in half the time without them.
_libc = ctypes.PyDLL(None)


def batches_work() -> bool:
    """Whether libc and kernel have both calls (a seccomp profile may refuse them with ENOSYS or EPERM)."""
    libc = ctypes.PyDLL(None, use_errno=True)
    for name in ("recvmmsg", "sendmmsg"):
        try:
            call = getattr(libc, name)
        except AttributeError:
            return False
        if call(-1, ctypes.byref(Message()), 1, 0, None) != -1 or ctypes.get_errno() != errno.EBADF:
            return False
    return True


def kernel_drops(sock: socket.socket) -> int:
    """Datagrams that the kernel dropped at this socket since it was made, modulo 2**32.

    The same counter that SO_RXQ_OVFL puts beside datagrams, without a cost per datagram.
    """
    return int(struct.unpack_from("=9I", sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 64))[_MEMINFO_DROPS])


def is_wildcard(sock: socket.socket) -> bool:
    """Whether the socket takes what comes to any of our addresses."""
    return sock.getsockname()[0] in ("0.0.0.0", "::")


def ask_for_destination(sock: socket.socket) -> None:
    """Have the kernel say with each datagram which address it came to."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)


def clear_interface(pktinfo: bytearray | memoryview) -> None:
    """Make the `in_pktinfo` or `in6_pktinfo` of a datagram that of its reply, in place.

    The route decides where a reply leaves, not where the question came in; only link-local addresses need both.
    """
    if len(pktinfo) == 12:
        pktinfo[:4] = bytes(4)
        if not any(pktinfo[4:8]):  # it was queued before the socket asked for this: only its own header tells
            pktinfo[4:8] = pktinfo[8:12]
    elif not (pktinfo[0] == 0xFE and pktinfo[1] & 0xC0 == 0x80):
        pktinfo[16:] = bytes(4)


def pktinfo_message(pktinfo: bytes) -> tuple[int, int, bytes]:
    """The control message that makes a datagram leave from the address in `pktinfo`, for `socket.sendmsg`."""
    if len(pktinfo) == 12:
        return socket.IPPROTO_IP, IP_PKTINFO, pktinfo
    return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, pktinfo


def receive_into(sock: socket.socket, buffer: memoryview, wildcard: bool) -> tuple[int, Peer, bytes, bool]:
    """One datagram without batches: its size in `buffer`, its sender, the pktinfo for its reply, whether it was cut.

    Raises OSError. On a `wildcard` socket `ask_for_destination` was called.
    """
    room = len(buffer)
    if not wildcard:
        # With MSG_TRUNC the kernel gives the datagram's length, not that of what it copied.
        size, peer = sock.recvfrom_into(buffer, room, socket.MSG_TRUNC)
        return min(size, room), peer, b"", size > room
    size, control, flags, peer = sock.recvmsg_into([buffer], socket.CMSG_SPACE(20))
    pktinfo = bytearray(control[0][2])
    clear_interface(pktinfo)
    return size, peer, bytes(pktinfo), bool(flags & socket.MSG_TRUNC)


def send_from(sock: socket.socket, message: bytes, peer: Peer, pktinfo: bytes) -> None:
    """Send one datagram, from the address in `pktinfo` unless it is empty. Raises OSError."""
    if pktinfo:
        sock.sendmsg([message], [pktinfo_message(pktinfo)], 0, peer)
    else:
        sock.sendto(message, peer)


class DatagramSlots:
    """`count` slots of `size` bytes each, received into and answered from in place.

    The datagram in slot `i` begins at `memory[starts[i]]` and was `lengths[i]` long when it was sent: more than
    `size` if it was cut. To answer it, overwrite it there, set `sizes[i]` and send the slot: it still knows its
    sender, and which address of ours was asked.
    """

    def __init__(self, sock: socket.socket, count: int, size: int) -> None:
        self._fd = sock.fileno()
        self._ipv6 = sock.family == socket.AF_INET6
        # Slots don't touch, so what `lengths` cuts out for a cut datagram is always longer than any whole one.
        # And 2,048 as a step would put all beginnings into the same few sets of the L1 cache.
        step = size + 64
        self.memory = mmap.mmap(-1, count * step)
        """An mmap, because its slices are bytes at once: a key in half the time that a memoryview takes."""
        self.starts = tuple(range(0, count * step, step))
        self._names = bytearray(_NAME_ROOM * count)
        name_size = 28 if self._ipv6 else 16
        names = memoryview(self._names)
        self._peer_names = [names[start : start + name_size] for start in range(0, len(names), _NAME_ROOM)]
        controls = bytearray(_CONTROL_ROOM * count)
        pktinfo_size = 0
        if is_wildcard(sock):
            ask_for_destination(sock)
            pktinfo_size = 20 if self._ipv6 else 12
        at = socket.CMSG_LEN(0)
        self._pktinfos = [
            memoryview(controls)[start + at : start + at + pktinfo_size]
            for start in range(0, len(controls), _CONTROL_ROOM)
        ]

        # Set up once: of a received header the kernel changes nothing but `length` and `flags`, because names and
        # control messages of one socket are all of one size. So no field is ever reset.
        room, filled = (bytearray(ctypes.sizeof(IoVec) * count) for _ in range(2))
        incoming, outgoing = ((Message * count)() for _ in range(2))
        for messages, pieces in ((incoming, room), (outgoing, filled)):
            for i in range(count):
                (IoVec * count).from_buffer(pieces)[i] = IoVec(_address(self.memory) + self.starts[i], size)
                messages[i].header = MessageHeader(
                    name=_address(self._names) + i * _NAME_ROOM,
                    name_size=name_size,
                    pieces=_address(pieces) + i * ctypes.sizeof(IoVec),
                    piece_count=1,
                    control=_address(controls) + i * _CONTROL_ROOM if pktinfo_size else None,
                    control_size=socket.CMSG_SPACE(pktinfo_size) if pktinfo_size else 0,
                )
        self._kept = (room, filled, controls)  # the kernel knows them by address alone
        self.lengths = (
            memoryview(incoming).cast("B").cast("I")[Message.length.offset // 4 :: ctypes.sizeof(Message) // 4]
        )
        self.sizes = memoryview(filled).cast("P")[1::2]

        flags = MSG_DONTWAIT | socket.MSG_TRUNC
        received = ctypes.byref(incoming)
        self._recvmmsg: Callable[[], int] = partial(_libc.recvmmsg, self._fd, received, count, flags, None)
        self._recvmmsg_one: Callable[[], int] = partial(_libc.recvmmsg, self._fd, received, 1, flags, None)
        first = ctypes.byref(ctypes.c_char.from_buffer(self.memory))
        name = ctypes.byref(ctypes.c_char.from_buffer(self._names))
        self._name_size = ctypes.c_uint32(name_size)

        self.receive: Callable[[], int] = self._recvmmsg
        """Take what waits into the slots, `count` datagrams at most; how many, or less than 1 when none waits."""
        self.receive_one: Callable[[], int] = partial(
            _libc.recvfrom, self._fd, first, size, flags, name, ctypes.byref(self._name_size)
        )
        """Take one datagram into slot 0, for less; its length (`lengths` doesn't have it), or -1 when none waits."""
        self.send_one: Callable[[int], bool] = _sender(self._fd, first, name, name_size)
        """Send so many bytes of slot 0 back to where it came from, for less; whether the kernel took them."""
        if pktinfo_size:
            self.receive, self.receive_one = self._receive_with_destination, self._receive_one_with_destination
            self.send_one = self._send_one_from_destination
        self._sendmmsg: Callable[..., int] = _libc.sendmmsg
        self._outgoing = [ctypes.byref(outgoing, i * ctypes.sizeof(Message)) for i in range(count)]
        self.send_first: Callable[[int, int], int] = partial(self._sendmmsg, self._fd, self._outgoing[0])
        """`send_first(n, MSG_DONTWAIT)` sends the first `n` slots; how many before an error, or -1."""

    def _receive_with_destination(self) -> int:
        received = self._recvmmsg()
        for i in range(received):
            clear_interface(self._pktinfos[i])
        return received

    def _receive_one_with_destination(self) -> int:
        if self._recvmmsg_one() < 1:
            return -1
        clear_interface(self._pktinfos[0])
        return self.lengths[0]

    def _send_one_from_destination(self, size: int) -> bool:
        self.sizes[0] = size
        return self.send(0, 1) == 0

    def send(self, first: int, end: int) -> int:
        """Send what is in the slots from `first` up to `end` back to where it came from; how many failed."""
        failed = 0
        while first < end:
            # An error stops the batch at its message, and is reported only when that one is first.
            sent = self._sendmmsg(self._fd, self._outgoing[first], end - first, MSG_DONTWAIT)
            if sent > 0:
                first += sent
            else:
                failed += 1
                first += 1
        return failed

    def peer(self, i: int) -> Peer:
        """Who sent the datagram in slot `i`."""
        if self._ipv6:
            port, flow, ip, scope = struct.unpack_from("!2xHI16s4s", self._names, i * _NAME_ROOM)
            return socket.inet_ntop(socket.AF_INET6, ip), port, flow, int.from_bytes(scope, sys.byteorder)
        port, ip = struct.unpack_from("!2xH4s", self._names, i * _NAME_ROOM)
        return socket.inet_ntop(socket.AF_INET, ip), port

    def name(self, i: int) -> bytes:
        """The sender's address as the kernel wrote it, for less than `peer` takes: the same for the same one."""
        return bytes(self._peer_names[i])

    def pktinfo(self, i: int) -> bytes:
        """What a late reply to slot `i` is sent from; empty where the socket is bound to one address."""
        return bytes(self._pktinfos[i])


def _sender(fd: int, buffer: object, name: object, name_size: int) -> Callable[[int], bool]:
    """A closure over constants: an attribute each would cost more than the call."""
    sendto: Callable[..., int] = _libc.sendto

    def send(size: int) -> bool:
        return sendto(fd, buffer, size, MSG_DONTWAIT, name, name_size) == size

    return send


def _address(buffer: bytearray | mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
