"""EndpointSlices and Services as the API server sends them, and as nobody should."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.cluster.objects import MOST_FLAWS, ObjectError
from proxy.cluster.services import decode_service
from proxy.cluster.slices import decode_slice
from proxy.core.endpoints import PortOfService, Service, Slice, SliceEndpoint, SlicePort

UID = "0b6c1c3a-7d6f-4a0e-9f0c-5f7d1f0f6c11"


def slice_object(**changed: Any) -> dict[str, Any]:
    """A slice with one port and one endpoint; `changed` replaces whole keys, of metadata too."""
    metadata: dict[str, Any] = {
        "name": "statsd-abc",
        "namespace": "monitoring",
        "labels": {"kubernetes.io/service-name": "statsd"},
        "resourceVersion": "812",
    }
    for key in changed.keys() & {"name", "namespace", "labels", "annotations", "resourceVersion"}:
        metadata[key] = changed.pop(key)
    return {
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": metadata,
        "addressType": "IPv4",
        "ports": [{"name": "statsd", "protocol": "UDP", "port": 8125}],
        "endpoints": [{"addresses": ["10.244.1.7"]}],
        **changed,
    }


def decoded(given: bytes | dict[str, Any]) -> Slice:
    """What must be without a flaw."""
    found = decode_slice(given)
    assert found.problems == []
    assert found.value is not None
    return found.value


def endpoint(**keys: Any) -> SliceEndpoint:
    return decoded(slice_object(endpoints=[{"addresses": ["10.244.1.7"], **keys}])).endpoints[0]


def problems(**changed: Any) -> list[str]:
    """What is said of it, without its name, which every line has in front."""
    said = decode_slice(slice_object(**changed)).problems
    assert all(line.startswith("EndpointSlice monitoring/statsd-abc: ") for line in said)
    return [line.removeprefix("EndpointSlice monitoring/statsd-abc: ") for line in said]


def refusal(given: Any) -> str:
    with pytest.raises(ObjectError) as caught:
        decode_slice(given)
    return str(caught.value)


class TestWhole:
    def test_it_reads_everything_that_routing_needs(self):
        found = decoded(
            slice_object(
                annotations={"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-02T03:04:05.5Z"},
                endpoints=[
                    {
                        "addresses": ["10.244.1.7", "10.244.1.8"],
                        "conditions": {"ready": False, "serving": True, "terminating": True},
                        "hostname": "statsd-0",
                        "targetRef": {"kind": "Pod", "namespace": "monitoring", "name": "statsd-0", "uid": UID},
                        "nodeName": "node-a",
                        "zone": "zone-1",
                        "hints": {
                            "forZones": [{"name": "zone-1"}, {"name": "zone-2"}],
                            "forNodes": [{"name": "node-a"}],
                        },
                    }
                ],
            )
        )
        assert found == Slice(
            "monitoring",
            "statsd-abc",
            "statsd",
            "IPv4",
            (SlicePort("statsd", "UDP", 8125),),
            (
                SliceEndpoint(
                    "10.244.1.7",
                    False,
                    True,
                    True,
                    UID,
                    "node-a",
                    "zone-1",
                    ("zone-1", "zone-2"),
                    ("node-a",),
                ),
            ),
            812,
            1767323045.5,
        )

    def test_it_reads_json_raw_json_and_what_was_decoded_alike(self):
        content = slice_object()
        text = json.dumps(content).encode()
        assert decoded(text) == decoded(content) == decoded(msgspec.Raw(text))

    def test_it_reads_an_item_of_a_list_which_has_no_kind(self):
        assert decoded({key: value for key, value in slice_object().items() if key not in ("kind", "apiVersion")})

    def test_it_ignores_what_it_does_not_know(self):
        assert decoded(slice_object(new={"a": [1]}, endpoints=[{"addresses": ["10.0.0.1"], "new": 1}]))

    def test_it_tells_the_name_of_what_it_ignores(self):
        found = decode_slice(slice_object(labels=None))
        assert (found.namespace, found.name, found.version, found.value) == ("monitoring", "statsd-abc", 812, None)

    @pytest.mark.parametrize(
        ("given", "version"), [("812", 812), (812, 812), ("x1", 0), ("-1", 0), ("", 0), (None, 0)]
    )
    def test_it_takes_the_version_for_a_number_if_it_is_one(self, given, version):
        assert decoded(slice_object(resourceVersion=given)).version == version

    @pytest.mark.parametrize(
        ("text", "time"),
        [
            ("2026-01-02T03:04:05Z", 1767323045.0),
            ("2026-01-02T04:04:05.123456789+01:00", 1767323045.123456),
            ("2026-01-02T03:04:05", None),
            ("yesterday", None),
            ("", None),
        ],
    )
    def test_it_reads_the_time_of_the_change_if_there_is_one(self, text, time):
        annotations = {"endpoints.kubernetes.io/last-change-trigger-time": text}
        assert decoded(slice_object(annotations=annotations)).changed_at == time


class TestChecklist:
    @pytest.mark.parametrize("labels", [None, {}, {"app": "statsd"}, {"kubernetes.io/service-name": ""}])
    def test_item_14_a_slice_of_no_service_is_ignored(self, labels):
        found = decode_slice(slice_object(labels=labels))
        assert (found.value, found.problems) == (None, [])

    @pytest.mark.parametrize("conditions", [None, {}, {"ready": None, "serving": None, "terminating": None}])
    def test_item_17_nil_conditions_mean_ready_serving_and_not_terminating(self, conditions):
        assert endpoint(conditions=conditions) == endpoint() == SliceEndpoint("10.244.1.7", True, True, False)

    def test_item_17_each_condition_counts_by_itself(self):
        found = endpoint(conditions={"ready": False, "terminating": True})
        assert (found.ready, found.serving, found.terminating) == (False, True, True)

    def test_item_19_only_the_first_address_counts(self):
        found = decoded(slice_object(endpoints=[{"addresses": ["10.244.1.7", "not even an address"]}]))
        assert [one.address for one in found.endpoints] == ["10.244.1.7"]

    def test_item_19_a_port_has_its_defaults_and_one_without_a_number_is_skipped(self):
        found = decoded(
            slice_object(ports=[{"port": 53}, {"name": None, "protocol": None, "port": 54}, {"name": "any"}])
        )
        assert found.ports == (SlicePort("", "TCP", 53), SlicePort("", "TCP", 54))

    def test_item_21_a_thousand_endpoints_and_a_hundred_ports_are_read(self):
        found = decoded(
            slice_object(
                ports=[{"name": f"p{number}", "protocol": "UDP", "port": number} for number in range(1, 101)],
                endpoints=[{"addresses": [f"10.{index >> 8}.{index & 255}.1"]} for index in range(1200)],
            )
        )
        assert (len(found.ports), len(found.endpoints)) == (100, 1200)

    def test_item_22_ipv6_addresses_are_spelled_in_one_way(self):
        found = decoded(slice_object(addressType="IPv6", endpoints=[{"addresses": ["FD00:0:0::1"]}]))
        assert (found.family, found.endpoints[0].address) == ("IPv6", "fd00::1")

    def test_item_22_host_names_are_ignored(self):
        found = decode_slice(slice_object(addressType="FQDN", endpoints=[{"addresses": ["example.com"]}]))
        assert (found.value, found.problems) == (None, [])

    @pytest.mark.parametrize("hints", [None, {}, {"forZones": None, "forNodes": None}, {"forZones": []}])
    def test_item_23_absent_hints_are_empty(self, hints):
        found = endpoint(hints=hints, deprecatedTopology=None)
        assert (found.for_zones, found.for_nodes) == ((), ())


class TestTarget:
    def test_it_is_the_uid(self):
        assert endpoint(targetRef={"kind": "Pod", "name": "statsd-0", "uid": UID}).target == UID

    def test_it_is_kind_namespace_and_name_without_a_uid(self):
        assert endpoint(targetRef={"kind": "Node", "namespace": "x", "name": "a"}).target == "Node/x/a"
        assert endpoint(targetRef={"name": "statsd-0"}).target == "Pod/monitoring/statsd-0"

    @pytest.mark.parametrize("target", [None, {}, {"kind": "Pod"}])
    def test_it_is_empty_where_there_is_none(self, target):
        assert endpoint(targetRef=target).target == ""


class TestFlaws:
    @pytest.mark.parametrize(
        ("key", "empty"), [("endpoints", None), ("endpoints", []), ("ports", None), ("ports", [])]
    )
    def test_it_takes_null_for_empty(self, key, empty):
        assert getattr(decoded(slice_object(**{key: empty})), key) == ()

    @pytest.mark.parametrize("family", ["IPv5", "", None, 4, ["IPv4"]])
    def test_it_says_that_an_unknown_family_is_left_out(self, family):
        (said,) = problems(addressType=family)
        assert said.startswith("addressType: found ")
        assert said.endswith("; allowed are IPv4 and IPv6; the slice is left out")

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"port": 0}, "ports[0].port: found 0; allowed is 1 to 65535"),
            ({"port": -1}, "ports[0].port: found -1; allowed is 1 to 65535"),
            ({"port": 65536}, "ports[0].port: found 65536; allowed is 1 to 65535"),
            ({"port": 10**40}, "ports[0].port: found 1000000000000000000"),
            ({"port": "53"}, "ports[0].port: found '53'; allowed is a whole number"),
            ({"port": True}, "ports[0].port: found true; allowed is a whole number"),
            ({"port": 53, "name": 5}, "ports[0].name: found the number 5; allowed is text"),
            (None, "ports[0]: found nothing; allowed is a mapping"),
            ("53/udp", "ports[0]: found '53/udp'; allowed is a mapping"),
        ],
    )
    def test_it_leaves_a_wrong_port_out_and_keeps_the_others(self, wrong, said):
        changed = {"ports": [wrong, {"name": "statsd", "protocol": "UDP", "port": 8125}]}
        (line,) = problems(**changed)
        assert line.startswith(said)
        assert line.endswith("; that port is left out")
        found = decode_slice(slice_object(**changed)).value
        assert found is not None
        assert found.ports == (SlicePort("statsd", "UDP", 8125),)

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"addresses": ["x"]}, "endpoints[0].addresses[0]: 'x' is no IPv4 address"),
            ({"addresses": ["fd00::1"]}, "endpoints[0].addresses[0]: 'fd00::1' is no IPv4 address"),
            ({"addresses": ["10.0.0.1/24"]}, "endpoints[0].addresses[0]: '10.0.0.1/24' is no IPv4 address"),
            ({"addresses": ["0.0.0.0"]}, "endpoints[0].addresses[0]: '0.0.0.0' is no address of one host"),
            ({"addresses": ["224.0.0.1"]}, "endpoints[0].addresses[0]: '224.0.0.1' is no address of one host"),
            ({"addresses": [167772161]}, "endpoints[0].addresses[0]: the number 167772161 is no IPv4 address"),
            ({"addresses": []}, "endpoints[0].addresses: found none; allowed is one address or more"),
            ({"addresses": None}, "endpoints[0].addresses: found none; allowed is one address or more"),
            ({"addresses": "10.0.0.1"}, "endpoints[0].addresses: found '10.0.0.1'; allowed is a list"),
            (
                {"addresses": ["10.0.0.1"], "conditions": {"ready": "no"}},
                "endpoints[0].conditions.ready: found 'no'; allowed is true or false",
            ),
            (
                {"addresses": ["10.0.0.1"], "hints": {"forZones": [{"name": 1}]}},
                "endpoints[0].hints.forZones: found a whole number; allowed is text",
            ),
            ({"addresses": ["10.0.0.1"], "hints": {"forZones": [{}]}}, "endpoints[0].hints.forZones.name: missing"),
            ([], "endpoints[0]: found a list; allowed is a mapping"),
        ],
    )
    def test_it_leaves_a_wrong_endpoint_out_and_keeps_the_others(self, wrong, said):
        changed = {"endpoints": [wrong, {"addresses": ["10.244.1.7"]}]}
        assert problems(**changed) == [f"{said}; that endpoint is left out"]
        found = decode_slice(slice_object(**changed)).value
        assert found is not None
        assert found.endpoints == (SliceEndpoint("10.244.1.7"),)

    @pytest.mark.parametrize("address", ["::ffff:127.0.0.1", "::ffff:0:0", "0:0:0:0:0:ffff:7f00:1"])
    def test_an_ipv4_address_in_an_ipv6_one_does_not_hide_a_listener(self, address):
        changed = {"addressType": "IPv6", "endpoints": [{"addresses": [address]}]}
        (line,) = problems(**changed)
        assert line.endswith("is an IPv4 address in an IPv6 one; that endpoint is left out")
        found = decode_slice(slice_object(**changed)).value
        assert found is not None
        assert found.endpoints == ()

    def test_it_stops_telling_after_so_many(self):
        said = problems(endpoints=[{"addresses": ["x" * 1000]}] * 500)
        assert len(said) == MOST_FLAWS + 1
        assert said[-1] == f"{500 - MOST_FLAWS} more of the kind"
        assert max(map(len, said)) < 200

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (b"<html>", "an object: this is no JSON: "),
            (b"", "an object: this is no JSON: "),
            (b"\xff", "an object: this is no JSON: "),
            (b"[" * 100_000, "an object: this is no JSON: "),
            (b"[]", "an object: found a list; allowed is an EndpointSlice"),
            (b"null", "an object: found nothing; allowed is an EndpointSlice"),
            (slice_object(kind="Status"), "an object: kind: found 'Status'; allowed is EndpointSlice"),
            (
                slice_object(apiVersion="discovery.k8s.io/v1beta1"),
                "EndpointSlice monitoring/statsd-abc: apiVersion: ",
            ),
            ({"kind": "EndpointSlice"}, "an EndpointSlice: metadata.name: missing"),
            (slice_object(metadata=[1]), "an EndpointSlice: metadata: found a list; allowed is a mapping"),
            (slice_object(name=5), "an EndpointSlice: metadata.name: found the number 5; allowed is text"),
            (
                slice_object(labels={"a": 5}),
                "an EndpointSlice: metadata.labels: found a whole number; allowed is text",
            ),
            (
                slice_object(endpoints={}),
                "EndpointSlice monitoring/statsd-abc: endpoints: found a mapping; allowed is",
            ),
            (slice_object(ports="53"), "EndpointSlice monitoring/statsd-abc: ports: found '53'; allowed is a list"),
        ],
    )
    def test_it_refuses_what_is_no_slice_as_a_whole(self, given, said):
        assert refusal(given).startswith(said)

    def test_it_keeps_a_name_that_breaks_lines_on_one(self):
        said = decode_slice(slice_object(name="a\nb", addressType="x")).problems
        assert said[0].startswith(r"EndpointSlice 'monitoring/a\nb': addressType: ")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["metadata", "addressType", "ports", "endpoints", "kind", "name", "labels", "addresses", "conditions", "spec"]


@given(st.dictionaries(st.sampled_from(KEYS), json_values), st.sampled_from(["ports", "endpoints"]), json_values)
def test_anything_else_is_a_flaw_or_an_object_error(changed, key, item):
    for content in ({**slice_object(), **changed}, {**slice_object(), key: [item]}, changed):
        for decode in (decode_slice, decode_service):
            try:
                said = decode(json.dumps(content).encode()).problems
            except ObjectError as error:
                said = [str(error)]
            assert not any("\n" in line for line in said)


class TestService:
    def service(self, **spec: Any) -> dict[str, Any]:
        return {"metadata": {"name": "statsd", "namespace": "monitoring", "resourceVersion": "9"}, "spec": spec}

    def decoded(self, **spec: Any) -> Service:
        found = decode_service(self.service(**spec))
        assert found.problems == []
        assert found.value is not None
        return found.value

    def test_it_reads_addresses_policy_and_ports(self):
        found = self.decoded(
            clusterIP="10.96.0.10",
            clusterIPs=["10.96.0.10", "fd00::A"],
            internalTrafficPolicy="Local",
            ports=[
                {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": "dns"},
                {"name": "dns-tcp", "protocol": "TCP", "port": 53, "targetPort": 10053},
            ],
        )
        assert found == Service(
            ("10.96.0.10", "fd00::a"),
            True,
            (PortOfService("dns", "UDP", 53, "dns"), PortOfService("dns-tcp", "TCP", 53, 10053)),
        )

    def test_it_tells_whose_it_is(self):
        found = decode_service(json.dumps(self.service()).encode())
        assert (found.kind, found.namespace, found.name, found.version) == ("Service", "monitoring", "statsd", 9)

    def test_it_takes_the_only_address_of_an_old_server(self):
        assert self.decoded(clusterIP="10.96.0.10").cluster_ips == ("10.96.0.10",)

    @pytest.mark.parametrize("ips", [{"clusterIP": "None", "clusterIPs": ["None"]}, {"clusterIP": ""}, {}])
    def test_it_has_no_address_when_headless(self, ips):
        assert self.decoded(**ips).cluster_ips == ()

    @pytest.mark.parametrize("target", [{}, {"targetPort": None}, {"targetPort": 0}, {"targetPort": ""}])
    def test_it_takes_the_port_itself_where_no_target_is_given(self, target):
        assert self.decoded(ports=[{"port": 53, **target}]).ports == (PortOfService("", "TCP", 53, 53),)

    @pytest.mark.parametrize("policy", [None, "Cluster", 5])
    def test_it_has_no_local_policy_unless_it_says_so(self, policy):
        assert not self.decoded(internalTrafficPolicy=policy).local_only

    def test_it_leaves_out_what_is_wrong(self):
        found = decode_service(self.service(clusterIPs=["x", "10.96.0.10"], ports=[{"port": 0}, {}, {"port": 53}]))
        assert found.problems == [
            "Service monitoring/statsd: spec.clusterIPs[0]: 'x' is no IP address; it is left out",
            "Service monitoring/statsd: spec.ports[0].port: found 0; allowed is 1 to 65535; that port is left out",
            "Service monitoring/statsd: spec.ports[1].port: missing; that port is left out",
        ]
        assert found.value == Service(("10.96.0.10",), ports=(PortOfService("", "TCP", 53, 53),))

    @pytest.mark.parametrize("content", [{"kind": "Pod"}, {"spec": []}, {"spec": [1], "metadata": {"name": "a"}}])
    def test_it_refuses_what_is_no_service(self, content):
        with pytest.raises(ObjectError):
            decode_service(content)
