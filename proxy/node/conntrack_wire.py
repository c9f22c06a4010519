"""Conntrack's netlink messages: requests as bytes, and entries out of what the kernel sends. It opens no socket.

Names and numbers are those of linux/netfilter/nfnetlink_conntrack.h.
"""

import socket
import struct
from collections.abc import Callable, Iterator
from functools import lru_cache

from proxy.core.flows import Flow, Protocol

HEADER = struct.Struct("=IHHII")
"""Length, type, flags, sequence number, port of the sender (struct nlmsghdr)."""
NLMSG_ERROR, NLMSG_DONE, NLMSG_OVERRUN = 2, 3, 4
NETLINK_NETFILTER = 12
"""The protocol of a socket that speaks them."""
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR = 0x1, 0x4, 0x300, 0x10

_GET, _DELETE = 0x101, 0x102  # IPCTNL_MSG_CT_GET and _DELETE of NFNL_SUBSYS_CTNETLINK
_ENTRY = 0x100
_NESTED = 0x8000
_TYPE = 0x3FFF

_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _TIMEOUT, _COUNTERS_ORIG = 1, 2, 3, 7, 9
_ID, _ZONE, _TIMESTAMP, _FILTER = 12, 18, 20, 25
_IP, _PROTO, _TUPLE_ZONE = 1, 2, 3
_IP_ATTRIBUTES: dict[int, tuple[int, int]] = {socket.AF_INET: (1, 2), socket.AF_INET6: (3, 4)}
_PROTO_NUM, _SRC_PORT, _DST_PORT = 1, 2, 3
_FILTER_ORIG_FLAGS = 1
# The kernel's nf_internals.h; kernels before 5.8 know no filter and send everything.
_BY_IP_SRC, _BY_IP_DST, _BY_PROTO, _BY_SRC_PORT, _BY_DST_PORT = 1 << 0, 1 << 1, 1 << 3, 1 << 4, 1 << 5

_NUMBERS: dict[Protocol, int] = {"UDP": socket.IPPROTO_UDP, "TCP": socket.IPPROTO_TCP}
_SEEN_REPLY = 1 << 1  # IPS_SEEN_REPLY

_NFGENMSG = struct.Struct("=BBH")
_ATTRIBUTE = struct.Struct("=HH")
_I32 = struct.Struct("=i")
_U16, _U32, _U64 = struct.Struct("!H"), struct.Struct("!I"), struct.Struct("!Q")
AFTER_HEADER = HEADER.size + _NFGENMSG.size
"""Where a message's attributes begin."""

_Place = tuple[int, int]
"""From and to, in a buffer."""


def dump_request(family: int, protocol: Protocol, address: str | None, *, sources: bool = False) -> bytes:
    """Ask for all entries of an IP family and protocol, or only for those to one `ip:port`; more may be sent.

    With `sources` those from it.
    """
    flags = _BY_PROTO
    by_ip, by_port, port_kind = (
        (_BY_IP_SRC, _BY_SRC_PORT, _SRC_PORT) if sources else (_BY_IP_DST, _BY_DST_PORT, _DST_PORT)
    )
    proto = _packed(_PROTO_NUM, bytes((_NUMBERS[protocol],)))
    tuple_ = b""
    if address is not None:
        ip, port = _split(address)
        flags |= by_port
        # Linux up to 6.18 at least compares IPv6 addresses the wrong way round and sends all but the wanted ones.
        if family == socket.AF_INET:
            flags |= by_ip
            tuple_ = _packed(_IP | _NESTED, _packed(_IP_ATTRIBUTES[family][0 if sources else 1], ip))
        proto += _packed(port_kind, _U16.pack(port))
    tuple_ += _packed(_PROTO | _NESTED, proto)
    filtered = _packed(_FILTER_ORIG_FLAGS, struct.pack("=I", flags))
    body = _packed(_TUPLE_ORIG | _NESTED, tuple_) + _packed(_FILTER | _NESTED, filtered)
    return message(_GET, NLM_F_REQUEST | NLM_F_DUMP, 1, family, body)


def delete_request(flow: Flow, number: int) -> bytes:
    """Delete this entry and no other: a later one with the same addresses has another ID."""
    (source, source_port), (destination, port) = _split(flow.source), _split(flow.destination)
    family = socket.AF_INET6 if len(source) == 16 else socket.AF_INET
    src, dst = _IP_ATTRIBUTES[family]
    ips = _packed(src, source) + _packed(dst, destination)
    proto = _packed(_PROTO_NUM, bytes((_NUMBERS[flow.protocol],)))
    proto += _packed(_SRC_PORT, _U16.pack(source_port)) + _packed(_DST_PORT, _U16.pack(port))
    tuple_ = _packed(_IP | _NESTED, ips) + _packed(_PROTO | _NESTED, proto)
    body = _packed(_TUPLE_ORIG | _NESTED, tuple_) + _packed(_ID, _U32.pack(flow.id))
    return message(_DELETE, NLM_F_REQUEST | NLM_F_ACK, number, family, body)


def messages(buffer: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Type, flags, begin and end of each message in what was received at once. Raises ValueError for half a one."""
    offset = 0
    while offset < len(buffer):
        if len(buffer) - offset < HEADER.size:
            raise ValueError("half a netlink header")
        length, kind, flags, _, _ = HEADER.unpack_from(buffer, offset)
        if length < HEADER.size or offset + length > len(buffer):
            raise ValueError("half a netlink message")
        yield kind, flags, offset, offset + length
        offset += (length + 3) & ~3


def error_number(buffer: bytes, begin: int, end: int) -> int:
    """The errno in a message of type NLMSG_ERROR or NLMSG_DONE; 0 for none."""
    return -int(_I32.unpack_from(buffer, begin + HEADER.size)[0]) if end - begin >= HEADER.size + 4 else 0


def entry(
    kind: int, buffer: bytes, begin: int, end: int, protocol: Protocol, concerns: Callable[[str], bool]
) -> Flow | None:
    """The flow in this message; None for what is none, of another protocol or zone, or to an address of no concern.

    `concerns` is asked for `ip:port`, what the client sends to. Raises ValueError for what makes no sense.
    """
    if kind != _ENTRY:
        return None
    try:
        return _entry(buffer, begin, end, protocol, concerns)
    except (struct.error, KeyError, OSError) as error:
        raise ValueError(f"a conntrack entry that makes no sense: {buffer[begin:end].hex()[:400]}") from error


def _entry(buffer: bytes, begin: int, end: int, protocol: Protocol, concerns: Callable[[str], bool]) -> Flow | None:
    family = _IP_ATTRIBUTES.get(buffer[begin + HEADER.size])
    if family is None:
        return None
    places = _attributes(buffer, (begin + AFTER_HEADER, end))
    original = _attributes(buffer, places[_TUPLE_ORIG])
    proto = _attributes(buffer, original[_PROTO])
    if buffer[proto[_PROTO_NUM][0]] != _NUMBERS[protocol]:
        return None
    src, dst = family
    ips = _attributes(buffer, original[_IP])
    destination = _address(buffer, ips[dst], proto[_DST_PORT])
    if not concerns(destination) or _TUPLE_ZONE in original or _zone(buffer, places):
        return None
    reply = _attributes(buffer, places[_TUPLE_REPLY])
    reply_proto = _attributes(buffer, reply[_PROTO])
    reply_ips = _attributes(buffer, reply[_IP])
    return Flow(
        source=_address(buffer, ips[src], proto[_SRC_PORT]),
        destination=destination,
        target=_address(buffer, reply_ips[src], reply_proto[_SRC_PORT]),
        id=_u32(buffer, places[_ID]),
        answered=bool(_u32(buffer, places[_STATUS]) & _SEEN_REPLY),
        expires=float(_u32(buffer, places[_TIMEOUT])) if _TIMEOUT in places else 0.0,
        packets=_first_u64(buffer, places.get(_COUNTERS_ORIG)),
        started=None if (start := _first_u64(buffer, places.get(_TIMESTAMP))) is None else start / 1e9,
        protocol=protocol,
    )


def _attributes(buffer: bytes, place: _Place) -> dict[int, _Place]:
    offset, end = place
    found = {}
    unpack = _ATTRIBUTE.unpack_from
    while offset + 4 <= end:
        length, kind = unpack(buffer, offset)
        if length < 4 or offset + length > end:
            raise ValueError(f"an attribute of {length} bytes where {end - offset} are left")
        found[kind & _TYPE] = (offset + 4, offset + length)
        offset += (length + 3) & ~3
    return found


def _address(buffer: bytes, ip: _Place, port: _Place) -> str:
    return _joined(buffer[ip[0] : ip[1]], _U16.unpack_from(buffer, port[0])[0])


@lru_cache(maxsize=4096)
def _joined(ip: bytes, port: int) -> str:
    if len(ip) == 4:
        return f"{socket.inet_ntop(socket.AF_INET, ip)}:{port}"
    return f"[{socket.inet_ntop(socket.AF_INET6, ip)}]:{port}"


def _split(address: str) -> tuple[bytes, int]:
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    return socket.inet_pton(family, host.strip("[]")), int(port)


def _zone(buffer: bytes, places: dict[int, _Place]) -> int:
    return int(_U16.unpack_from(buffer, places[_ZONE][0])[0]) if _ZONE in places else 0


def _u32(buffer: bytes, place: _Place) -> int:
    return int(_U32.unpack_from(buffer, place[0])[0])


def _first_u64(buffer: bytes, place: _Place | None) -> int | None:
    """The first attribute of counters is their packets, of a time stamp its start."""
    if place is None:
        return None
    inner = _attributes(buffer, place)
    return int(_U64.unpack_from(buffer, inner[1][0])[0]) if 1 in inner else None


def _packed(kind: int, content: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(content), kind) + content + bytes(-len(content) % 4)


def message(kind: int, flags: int, number: int, family: int, body: bytes = b"") -> bytes:
    """One message of any of netfilter's subsystems; `number` is what an acknowledgement names."""
    length = AFTER_HEADER + len(body)
    return HEADER.pack(length, kind, flags, number, 0) + _NFGENMSG.pack(family, 0, 0) + body
