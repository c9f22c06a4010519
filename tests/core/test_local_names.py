"""Names that never leave the machine, and types that nobody should ask."""

import dns.message
import dns.rdatatype
import pytest

from proxy.core import local_names
from proxy.core.message import Query, Rcode, respond, scan_query
from tests.fakes import question


def answered(name: str, rtype: str = "A") -> dns.message.Message | None:
    """What a client sees of a local answer."""
    query = scan_query(question(name, rtype).to_wire())
    assert isinstance(query, Query)
    sections = local_names.answer(query.name, query.qtype)
    return None if sections is None else dns.message.from_wire(respond(query, sections, 512))


@pytest.mark.parametrize("name", ["localhost", "LocalHost", "a.b.localhost"])
@pytest.mark.parametrize(("rtype", "address"), [("A", "127.0.0.1"), ("AAAA", "::1")])
def test_localhost_is_this_machine(name: str, rtype: str, address: str) -> None:
    response = answered(name, rtype)
    assert response is not None
    assert [rdata.to_text() for rdata in response.answer[0]] == [address]
    assert response.answer[0].name == response.question[0].name


def test_localhost_has_nothing_but_addresses() -> None:
    response = answered("localhost", "MX")
    assert response is not None
    assert (response.rcode(), response.answer) == (Rcode.NOERROR, [])
    assert response.authority[0].rdtype == dns.rdatatype.SOA


@pytest.mark.parametrize("name", ["1.0.0.127.in-addr.arpa", "1." + "0." * 31 + "ip6.arpa"])
def test_loopback_addresses_are_localhost(name: str) -> None:
    response = answered(name, "PTR")
    assert response is not None
    assert response.answer[0][0].to_text() == "localhost."


@pytest.mark.parametrize(
    "name", ["invalid", "a.invalid", "2.0.0.127.in-addr.arpa", "1.1.254.169.in-addr.arpa", "0.8.e.f.ip6.arpa"]
)
def test_what_exists_nowhere_else_is_denied_with_a_soa(name: str) -> None:
    response = answered(name, "PTR")
    assert response is not None
    assert response.rcode() == Rcode.NXDOMAIN
    assert response.authority[0].rdtype == dns.rdatatype.SOA


@pytest.mark.parametrize("name", ["example", "localhost.example", "notinvalid", "10.in-addr.arpa", ".", "ip6.arpa"])
def test_other_names_are_asked_of_somebody(name: str) -> None:
    assert answered(name) is None


def test_any_gets_the_least_that_is_an_answer() -> None:
    response = answered("www.example", "ANY")
    assert response is not None
    assert response.answer[0].to_text() == 'www.example. 3600 IN HINFO "RFC8482" ""'


@pytest.mark.parametrize(
    ("rtype", "rcode"), [(252, Rcode.REFUSED), (251, Rcode.REFUSED), (250, Rcode.NOTIMP), (41, Rcode.FORMERR)]
)
def test_types_that_are_no_data_are_refused(rtype: int, rcode: Rcode) -> None:
    assert local_names.refused_type(rtype) is rcode


@pytest.mark.parametrize("rtype", [1, 28, 43, 64, 65, 65280])
def test_types_that_are_data_are_not(rtype: int) -> None:
    assert local_names.refused_type(rtype) is None


@pytest.mark.parametrize(
    ("name", "private"),
    [
        ("1.0.0.10.in-addr.arpa", True),
        ("1.16.172.in-addr.arpa", True),
        ("1.31.172.in-addr.arpa", True),
        ("1.168.192.in-addr.arpa", True),
        ("1.32.172.in-addr.arpa", False),
        ("1.15.172.in-addr.arpa", False),
        ("in-addr.arpa", False),
    ],
)
def test_the_reverse_zones_of_private_networks_are_known(name: str, private: bool) -> None:
    assert local_names.is_private_reverse(local_names.wire_name(name)) is private


@pytest.mark.parametrize(
    ("text", "wire"), [(".", b"\0"), ("", b"\0"), ("A.b.", b"\1a\1b\0"), ("x" * 63, b"\x3f" + b"x" * 63 + b"\0")]
)
def test_names_become_labels(text: str, wire: bytes) -> None:
    assert local_names.wire_name(text) == wire


@pytest.mark.parametrize("text", ["a..b", ".a", "x" * 64, ".".join(["x" * 63] * 4), "bücher.example"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"domain name|ascii"):
        local_names.wire_name(text)
