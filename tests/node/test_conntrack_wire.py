"""Conntrack's netlink messages: what is asked, what an entry says, and what no bytes may do."""

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.flows import Flow
from proxy.node import conntrack_wire as wire
from tests.node.replies import done, entry, error, flow, nested


def read(message: bytes, concerns: str | None = None) -> list[Flow | None]:
    def wanted(destination: str) -> bool:
        return concerns is None or destination == concerns

    return [wire.entry(kind, message, begin, end, "UDP", wanted) for kind, _, begin, end in wire.messages(message)]


@pytest.mark.parametrize(
    "given",
    [
        flow(),
        flow(target="10.96.0.20:8125"),
        flow("[fd00::9]:4000", "[fd00:96::20]:8125", "[fd00:244::7]:8125"),
        flow(packets=None, started=None),
        flow(answered=True, packets=2**40, expires=119.0),
    ],
)
def test_an_entry_is_the_flow_that_it_tells(given: Flow) -> None:
    assert read(entry(given)) == [given]


def test_several_messages_come_at_once() -> None:
    flows = [flow(f"10.244.1.9:{port}", id=port) for port in range(4000, 4003)]
    assert read(b"".join(map(entry, flows))) == flows


@pytest.mark.parametrize(
    "message",
    [
        entry(flow(protocol="TCP")),
        entry(flow(), zone=7),
        entry(flow(), tuple_zone=7),
        done(),
    ],
)
def test_other_protocols_and_zones_are_none_of_ours(message: bytes) -> None:
    assert read(message) == [None]


def test_only_what_concerns_is_read() -> None:
    assert read(entry(flow()), "10.96.0.20:8125") == [flow()]
    assert read(entry(flow()), "10.96.0.20:53") == [None]


def test_attributes_that_are_not_known_are_passed_over() -> None:
    assert read(entry(flow(), more=nested(99, b"\x00" * 13))) == [flow()]


def test_an_error_has_its_number() -> None:
    message = error(1)
    assert [wire.error_number(message, begin, end) for _, _, begin, end in wire.messages(message)] == [1]
    message = done()
    assert [wire.error_number(message, begin, end) for _, _, begin, end in wire.messages(message)] == [0]


def test_half_a_message_is_refused() -> None:
    with pytest.raises(ValueError, match="half"):
        read(entry(flow())[:-3])
    with pytest.raises(ValueError, match="half"):
        read(entry(flow()) + b"\x00" * 7)


def test_a_deletion_names_addresses_and_id() -> None:
    given = flow(id=0xDEADBEEF)
    request = wire.delete_request(given, 3)
    length, kind, flags, number, _ = wire.HEADER.unpack_from(request)
    assert (length, kind, flags, number) == (len(request), 0x102, wire.NLM_F_REQUEST | wire.NLM_F_ACK, 3)
    assert bytes([10, 244, 1, 9]) in request
    assert struct.pack("!I", 0xDEADBEEF) in request


@given(st.binary(max_size=200))
def test_random_bytes_in_an_entry_are_a_flow_nothing_or_refused(body: bytes) -> None:
    message = wire.HEADER.pack(20 + len(body), 0x100, 0, 1, 0) + struct.pack("=BBH", 2, 0, 0) + body
    with suppress(ValueError):
        read(message)


@given(st.data())
def test_a_flipped_byte_is_a_flow_nothing_or_refused(data: st.DataObject) -> None:
    message = bytearray(entry(flow()))
    message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ValueError):
        read(bytes(message))
