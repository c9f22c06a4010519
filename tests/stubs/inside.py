"""Runs inside the namespace: the scripted upstream, and a recorder of every DNS message on the loopback link.

Each message becomes one JSON line on stdout. Lines on stdin are commands: `mark TOKEN` echoes the token behind
everything that was on the wire before it, `ask ADDRESS` says whether a server answers there.
"""

import asyncio
import contextlib
import json
import socket
import struct
import sys
from typing import Any, cast

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

MARK_PORT = 9
DISTANCE = 0.02
"""Seconds to an answer over UDP. Go asks for A and AAAA from two threads: neither may end before the other began."""
PACKET_OUTGOING = 4  # <linux/if_packet.h>: on loopback every packet is seen leaving and arriving
A, AAAA = dns.rdatatype.A, dns.rdatatype.AAAA

# What the upstream does, by the label of the question's name that is nearest to the root and stands here:
# the verdict for A, the verdict for AAAA.
VERDICTS = {
    "good": ("good", "good"),
    "nodata": ("nodata", "nodata"),
    "lame": ("lame", "lame"),
    "nx": ("nx", "nx"),
    "servfail": ("servfail", "servfail"),
    "refused": ("refused", "refused"),
    "silent": ("silent", "silent"),
    "truncated": ("truncated", "truncated"),
    "aaaa-servfail": ("good", "servfail"),
    "aaaa-refused": ("good", "refused"),
    "aaaa-silent": ("good", "silent"),
    "aaaa-nx": ("good", "nx"),
    "a-nx": ("nx", "nodata"),
}
RCODES = {"nx": dns.rcode.NXDOMAIN, "servfail": dns.rcode.SERVFAIL, "refused": dns.rcode.REFUSED}
ADDRESSES = {A: ("192.0.2.1", "192.0.2.2", "192.0.2.3"), AAAA: ("2001:db8::1",)}


def verdict(name: str, qtype: int) -> str:
    """What this name's labels ask the upstream to do."""
    for label in reversed(name.lower().rstrip(".").split(".")):
        if label in VERDICTS:
            return VERDICTS[label][qtype == AAAA] if qtype in (A, AAAA) else "nodata"
    return "good" if qtype in (A, AAAA) else "nodata"


def answer(query: bytes, proto: str) -> bytes | None:
    """The upstream's reply to one question, None where it is to stay silent."""
    try:
        question = dns.message.from_wire(query)
        reply = dns.message.make_response(question, recursion_available=True)
    except dns.exception.DNSException:
        return None
    if not question.question:
        return None
    asked = question.question[0]
    what = verdict(asked.name.to_text(), asked.rdtype)
    if what == "silent":
        return None
    reply.set_rcode(RCODES.get(what, dns.rcode.NOERROR))
    if what == "truncated" and proto == "udp":
        reply.flags |= dns.flags.TC
    elif what in ("good", "truncated"):
        reply.answer.append(dns.rrset.from_text_list(asked.name, 60, "IN", asked.rdtype, ADDRESSES[asked.rdtype]))
    elif what in ("nx", "nodata"):
        soa = "ns.example. root.example. 1 3600 600 86400 60"
        reply.authority.append(dns.rrset.from_text("example.", 60, "IN", "SOA", soa))
    elif what == "lame":
        reply.flags &= ~(dns.flags.RA | dns.flags.AA)
    return reply.to_wire()


class UdpUpstream(asyncio.DatagramProtocol):
    """The scripted upstream over UDP."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        reply = answer(data, "udp")
        if reply is not None:
            asyncio.get_running_loop().call_later(DISTANCE, self.transport.sendto, reply, addr)


async def tcp_upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The scripted upstream over TCP, one connection."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            reply = answer(await reader.readexactly(length), "tcp")
            if reply is not None:
                writer.write(struct.pack("!H", len(reply)) + reply)
    writer.close()


def told(event: dict[str, object]) -> None:
    """One line for the harness outside."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def record(packet: bytes) -> None:
    """Tell of one IPv4 packet if it is a DNS message or a mark."""
    if packet[0] >> 4 != 4:
        return
    header = (packet[0] & 15) * 4
    source, target = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
    segment = packet[header : int.from_bytes(packet[2:4], "big")]
    source_port, target_port = struct.unpack_from("!HH", segment)
    if packet[9] == socket.IPPROTO_UDP:
        proto, payload = "udp", segment[8:]
    elif packet[9] == socket.IPPROTO_TCP:
        # Enough for a message that came in one segment, which is all that a loopback link makes of short ones.
        proto, payload = "tcp", segment[(segment[12] >> 4) * 4 :][2:]
    else:
        return
    if proto == "udp" and target_port == MARK_PORT:
        told({"mark": payload.decode()})
    if 53 not in (source_port, target_port) or len(payload) < 17:
        return
    try:
        message = dns.message.from_wire(payload, ignore_trailing=True)
    except dns.exception.DNSException:
        return
    told(
        {
            "from": f"{source}:{source_port}",
            "to": f"{target}:{target_port}",
            "proto": proto,
            "id": message.id,
            "response": bool(message.flags & dns.flags.QR),
            "name": message.question[0].name.to_text() if message.question else "",
            "type": dns.rdatatype.to_text(message.question[0].rdtype) if message.question else "",
            "rcode": dns.rcode.to_text(message.rcode()),
            "truncated": bool(message.flags & dns.flags.TC),
        }
    )


def sniffed(link: socket.socket) -> None:
    """Record what has arrived on the link."""
    with contextlib.suppress(BlockingIOError):
        while True:
            packet, address = link.recvfrom(65535)
            if address[2] != PACKET_OUTGOING:
                record(packet)


def asked(address: str) -> bool:
    """Whether a DNS server answers there within 200 ms."""
    host, _, port = address.rpartition(":")
    query = dns.message.make_query("localhost.", "A").to_wire()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.2)
        try:
            asking.connect((host, int(port)))
            asking.send(query)
            return asking.recv(512)[:2] == query[:2]
        except OSError:
            return False


async def main(upstream: str) -> None:
    """Serve and record until stdin ends."""
    loop = asyncio.get_running_loop()
    host, _, port = upstream.rpartition(":")
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.ntohs(0x0800)) as link,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as marking,
    ):
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        link.bind(("lo", 0x0800))
        link.setblocking(False)
        loop.add_reader(link, sniffed, link)
        await loop.create_datagram_endpoint(UdpUpstream, local_addr=(host, int(port)))
        await asyncio.start_server(tcp_upstream, host, int(port))
        commands = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        told({"ready": True})
        while line := (await commands.readline()).decode().split():
            if line[0] == "mark":
                marking.sendto(line[1].encode(), ("127.0.0.1", MARK_PORT))
            elif line[0] == "ask":
                told({"answered": await loop.run_in_executor(None, asked, line[1])})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
