"""Which sockets there are, and what becomes of packets that nothing translates."""

import socket
from contextlib import closing

import pytest

from proxy.control.stale_flows import Fate, interruption
from proxy.node.conntrack import Dump
from proxy.node.udp_sockets import bound_addresses


def test_sockets_are_found_by_their_address() -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as ipv4:
        ipv4.bind(("127.0.53.9", 0))
        address = f"127.0.53.9:{ipv4.getsockname()[1]}"
        assert address in bound_addresses()
    assert address not in bound_addresses()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_an_ipv6_socket_on_all_addresses_counts_for_both_families() -> None:
    with closing(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as ipv6:
        ipv6.bind(("::", 0))
        port = ipv6.getsockname()[1]
        assert {f"[::]:{port}", f"0.0.0.0:{port}"} <= bound_addresses()


def test_loopback_needs_no_translation_and_elsewhere_is_elsewhere() -> None:
    fate = Fate()
    assert fate.of("127.0.0.1:8125", managed=True) == "is meant"
    assert fate.of("[::1]:8125") == "is meant"
    assert fate.of("192.0.2.1:8125", managed=True) == "leaves"


def test_an_interruption_is_put_into_words() -> None:
    assert "read again once, and then whole" in interruption(Dump((), 5, 1, True))
    assert "some flows may be missing" in interruption(Dump((), 5, 4, False))
