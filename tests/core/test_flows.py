"""Which flows are stale, and why; and which never are."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.flows import Flow, ServiceAddress, ServiceAddresses, StaleFlow, Untranslated

STATSD = "10.96.0.20:8125"
LIVE = frozenset({"10.244.1.7:8125", "10.244.1.8:8125"})
RANGE = ip_network("10.96.0.0/16")


def flow(target: str, destination: str = STATSD, **changed: object) -> Flow:
    given = {"source": "10.244.1.9:4000", "id": 1, "answered": False, "expires": 30.0, "packets": 5, "started": None}
    return Flow(destination=destination, target=target, **{**given, **changed})  # type: ignore[arg-type]


def reason(given: Flow, *known: ServiceAddress, everywhere: bool = False) -> str | None:
    judged = ServiceAddresses(known, [RANGE] if everywhere else []).judge(given)
    return None if judged is None else judged.reason


def statsd(untranslated: Untranslated = "leaves", **changed: object) -> ServiceAddress:
    return ServiceAddress(STATSD, "monitoring/statsd", LIVE, untranslated, **changed)  # type: ignore[arg-type]


def test_a_flow_to_a_live_endpoint_is_right() -> None:
    assert reason(flow("10.244.1.7:8125"), statsd()) is None


def test_a_target_that_is_no_endpoint_is_stale() -> None:
    stale = ServiceAddresses([statsd()]).judge(flow("10.244.1.9:8125"))
    assert stale == StaleFlow(flow("10.244.1.9:8125"), "monitoring/statsd", "target is no endpoint")


def test_an_endpoint_of_another_service_is_none_of_this_one() -> None:
    other = ServiceAddress("10.96.0.30:53", "kube-system/kube-dns", frozenset({"10.244.1.9:8125"}))
    assert reason(flow("10.244.1.9:8125"), statsd(), other) == "target is no endpoint"


def test_an_endpoint_at_a_port_that_it_has_no_more_is_stale() -> None:
    assert reason(flow("10.244.1.7:9125"), statsd()) == "other port"


def test_without_any_endpoint_every_translated_flow_is_stale() -> None:
    none = ServiceAddress(STATSD, "monitoring/statsd", frozenset())
    assert reason(flow("10.244.1.7:8125"), none) == "target is no endpoint"


@pytest.mark.parametrize(
    ("untranslated", "expected"),
    [
        ("leaves", "pinned without DNAT"),
        ("stays here", "pinned to local delivery without DNAT"),
        ("is meant", None),
    ],
)
def test_a_flow_that_was_never_translated_is_judged_by_where_it_ends(
    untranslated: Untranslated, expected: str | None
) -> None:
    assert reason(flow(STATSD), statsd(untranslated)) == expected


def test_where_endpoints_are_not_known_only_what_is_pinned_is_stale() -> None:
    unknown = ServiceAddress(STATSD, "", None, "stays here")
    assert reason(flow("10.244.1.99:53"), unknown) is None
    stale = ServiceAddresses([unknown]).judge(flow(STATSD))
    assert stale is not None
    assert (stale.service, stale.reason) == (STATSD, "pinned to local delivery without DNAT")


def test_other_addresses_are_no_concern() -> None:
    known = ServiceAddresses([statsd()])
    assert not known.concerns("10.96.0.20:53")
    assert known.judge(flow("192.0.2.1:53", "10.96.0.20:53")) is None
    assert known.addresses == (STATSD,)


def test_in_a_range_of_which_all_is_known_a_translated_flow_to_nothing_is_of_a_service_that_is_gone() -> None:
    gone = "10.96.0.77:8125"
    assert reason(flow("10.244.1.7:8125", gone), statsd(), everywhere=True) == "Service is gone"
    assert reason(flow("10.244.1.7:8125", gone), statsd()) is None
    assert reason(flow(gone, gone), statsd(), everywhere=True) is None  # nobody's, and nobody was promised it
    assert reason(flow("10.244.1.7:8125", "192.0.2.1:30125"), statsd(), everywhere=True) is None
    assert reason(flow("[fd00::7]:8125", "[fd00:96::77]:8125"), statsd(), everywhere=True) is None
    assert ServiceAddresses([statsd()], [RANGE]).addresses is None


def test_every_target_of_a_service_that_is_known_to_be_gone_is_stale() -> None:
    gone = ServiceAddress(STATSD, "monitoring/statsd", frozenset(), "is meant", gone=True)
    assert reason(flow("10.244.1.7:8125"), gone) == "Service is gone"
    assert reason(flow(STATSD), gone) is None


def test_where_the_address_may_be_anothers_by_now_only_former_endpoints_are_stale() -> None:
    gone = ServiceAddress(STATSD, "monitoring/statsd", frozenset(), gone=True, former=LIVE)
    assert reason(flow("10.244.1.7:8125"), gone) == "Service is gone"
    assert reason(flow("10.244.3.3:9999"), gone) is None
    assert reason(flow(STATSD), gone) is None


def test_of_an_address_that_is_told_twice_either_allows() -> None:
    listener = ServiceAddress(STATSD, "", None, "is meant")
    other = ServiceAddress(STATSD, "monitoring/extra", frozenset({"10.244.2.2:8125"}))
    for known in ((listener, statsd(), other), (other, listener, statsd())):
        assert reason(flow("10.244.2.2:8125"), *known) is None
        assert reason(flow("10.244.1.7:8125"), *known) is None
        assert reason(flow(STATSD), *known) is None
        assert reason(flow("10.244.1.99:8125"), *known) == "target is no endpoint"


def test_an_address_that_came_back_is_not_gone() -> None:
    gone = ServiceAddress(STATSD, "monitoring/old", frozenset(), gone=True, former=LIVE)
    for known in ((gone, statsd()), (statsd(), gone)):
        assert reason(flow("10.244.1.7:8125"), *known) is None


IPS = st.integers(0, 3).map(lambda last: f"10.244.1.{last}")
TARGETS = st.builds(lambda ip, port: f"{ip}:{port}", IPS, st.sampled_from([53, 8125]))
DESTINATIONS = st.sampled_from([STATSD, "10.96.0.77:8125", "192.0.2.1:53"])
KNOWN = st.lists(
    st.builds(
        ServiceAddress,
        DESTINATIONS,
        st.sampled_from(["", "a/b"]),
        st.one_of(st.none(), st.frozensets(TARGETS)),
        st.sampled_from(["leaves", "stays here", "is meant"]),
    ),
    max_size=4,
)


@given(KNOWN, st.booleans(), DESTINATIONS, TARGETS)
def test_a_flow_to_a_live_endpoint_of_its_address_is_never_stale(
    known: list[ServiceAddress], everywhere: bool, destination: str, target: str
) -> None:
    here = ServiceAddress(destination, "a/b", frozenset({target}))
    assert reason(flow(target, destination), *known, here, everywhere=everywhere) is None


@given(KNOWN, st.booleans(), DESTINATIONS, TARGETS)
def test_what_is_judged_was_of_concern(
    known: list[ServiceAddress], everywhere: bool, destination: str, target: str
) -> None:
    services = ServiceAddresses(known, [RANGE] if everywhere else [])
    if services.judge(flow(target, destination)) is not None:
        assert services.concerns(destination)
        assert services.addresses is None or destination in services.addresses
