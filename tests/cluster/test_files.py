"""The endpoints_file: what is read, and that each error has its line and column."""

import json
from pathlib import Path

import pytest
import yaml

from proxy.cluster.files import (
    MOST_BYTES,
    SettingsError,
    SettingsUnreadable,
    parse_endpoints,
    read_endpoints_file,
)
from proxy.core.endpoints import Slice, SliceEndpoint, SlicePort
from proxy.documents import values

SLICE = """\
kind: EndpointSlice
apiVersion: discovery.k8s.io/v1
metadata:
  name: statsd-abc
  namespace: monitoring
  labels: {kubernetes.io/service-name: statsd}
addressType: IPv4
ports:
- {name: statsd, protocol: UDP, port: 8125}
endpoints:
- addresses: [10.244.1.7]
  conditions: {ready: true}
  targetRef: {kind: Pod, name: statsd-0}
"""
HEAD, _, TAIL = SLICE.partition("addressType")
READ = Slice(
    "monitoring",
    "statsd-abc",
    "statsd",
    "IPv4",
    (SlicePort("statsd", "UDP", 8125),),
    (SliceEndpoint("10.244.1.7", target="Pod/monitoring/statsd-0"),),
)


def problems(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse_endpoints(text, "f")
    return [str(problem).removeprefix("f:") for problem in caught.value.problems]


def in_list(*texts: str, kind: str = "List") -> str:
    """A list object; its first item's first key stands at line 3, column 3."""
    items = "".join("- " + text.rstrip("\n").replace("\n", "\n  ") + "\n" for text in texts)
    return f"kind: {kind}\nitems:\n{items}"


class TestReading:
    def test_it_reads_a_slice(self):
        assert parse_endpoints(SLICE) == (READ,)

    def test_it_reads_a_file(self, tmp_path):
        path = tmp_path / "endpoints.yaml"
        path.write_bytes(b"\xef\xbb\xbf" + SLICE.replace("\n", "\r\n").encode())
        assert read_endpoints_file(path) == read_endpoints_file(str(path)) == (READ,)

    def test_it_reads_several_documents_and_lists(self):
        other = SLICE.replace("statsd-abc", "statsd-def")
        assert [one.name for one in parse_endpoints(f"{SLICE}---\n{in_list(other, SLICE)}")] == [
            "statsd-abc",
            "statsd-def",
            "statsd-abc",
        ]

    def test_it_reads_a_list_as_the_api_server_sends_it(self):
        item = SLICE.partition("metadata")[1] + SLICE.partition("metadata")[2]
        assert parse_endpoints(in_list(item, kind="EndpointSliceList")) == (READ,)

    def test_it_reads_json(self):
        assert parse_endpoints(json.dumps(yaml.safe_load(SLICE), indent=2)) == (READ,)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "---\n",
            "---\n---\n# nothing\n---\nnull\n",
            "kind: List\nitems: []\n",
            "kind: List\nitems: null\n",
            "kind: List",
        ],
    )
    def test_it_takes_empty_documents_and_lists(self, text):
        assert parse_endpoints(text) == ()

    def test_it_takes_null_for_empty(self):
        (found,) = parse_endpoints(f"{HEAD}addressType: IPv4\nports: null\nendpoints: null\n")
        assert (found.ports, found.endpoints) == ((), ())

    def test_it_leaves_out_slices_of_no_service_and_host_names(self):
        assert parse_endpoints(SLICE.replace("kubernetes.io/service-name", "app")) == ()
        assert parse_endpoints(f"{HEAD}addressType: FQDN\nendpoints: [{{addresses: [example.com]}}]\n") == ()

    def test_it_takes_aliases_and_merge_keys(self):
        text = f"{HEAD}addressType: IPv4\nports: []\nendpoints:\n- &a {{addresses: [10.0.0.1], nodeName: a}}\n- *a\n"
        text += "- <<: *a\n  addresses: [10.0.0.2]\n"
        (found,) = parse_endpoints(text)
        one = SliceEndpoint("10.0.0.1", node="a")
        assert found.endpoints == (one, one, SliceEndpoint("10.0.0.2", node="a"))

    def test_it_names_a_slice_without_a_name_by_its_line(self):
        text = SLICE.replace("  name: statsd-abc\n", "")
        assert [one.name for one in parse_endpoints(f"{text}---\n{text}")] == ["line-1", "line-14"]

    def test_it_takes_what_kubectl_prints(self):
        text = SLICE.replace(
            "  namespace:",
            '  generateName: statsd-\n  resourceVersion: "812"\n  uid: 1-2\n  generation: 3\n  namespace:',
        )
        text = text.replace(
            "metadata:\n", "metadata:\n  creationTimestamp: 2026-01-02T03:04:05Z\n  ownerReferences: []\n"
        )
        assert parse_endpoints(text)[0].version == 812

    def test_it_reads_a_thousand_endpoints_in_ten_slices(self):
        text = "---\n".join(
            f"{HEAD}addressType: IPv4\nports: []\nendpoints:\n"
            + "".join(f"- addresses: [10.0.{number}.{last}]\n  nodeName: n{last}\n" for last in range(100))
            for number in range(10)
        )
        assert sum(len(one.endpoints) for one in parse_endpoints(text)) == 1000


class TestErrors:
    def test_it_reports_everything_at_once_with_file_line_and_column(self, tmp_path):
        path = tmp_path / "endpoints.yaml"
        path.write_text(
            SLICE.replace("8125", "81250").replace("10.244.1.7", "10.244.1")
            + "---\n"
            + in_list(SLICE.replace("IPv4", "IPv5"), "kind: Service")
        )
        with pytest.raises(SettingsError) as caught:
            read_endpoints_file(path)
        assert str(caught.value).splitlines() == [
            f"{path}:9:39: ports[0].port: found 81250; allowed is 1 to 65535",
            f"{path}:11:15: endpoints[0].addresses[0]: '10.244.1' is no IPv4 address",
            f"{path}:23:16: items[0].addressType: found 'IPv5'; allowed are IPv4 and IPv6",
            f"{path}:30:9: items[1].kind: found 'Service'; allowed is EndpointSlice",
        ]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("kind: Service", "1:7: kind: found 'Service'; allowed are EndpointSlice, List and EndpointSliceList"),
            (
                "kind: [EndpointSlice]",
                "1:7: kind: found a list; allowed are EndpointSlice, List and EndpointSliceList",
            ),
            ("metadata: {}", "1:1: kind: missing; allowed are EndpointSlice, List and EndpointSliceList"),
            ("- a", "1:1: (file): found a list; allowed are EndpointSlice, List and EndpointSliceList"),
            ("hello", "1:1: (file): found 'hello'; allowed are EndpointSlice, List and EndpointSliceList"),
            ("kind: List\nitems: {}", "2:8: items: found a mapping; allowed is a list"),
            ("kind: List\nitems: [{metadata: {}}]", "2:9: items[0].kind: missing; allowed are"),
            ("kind: List\nitems: [null]", "2:9: items[0]: found nothing; allowed are"),
            ("kind: List\nitems: [{kind: List}]", "2:16: items[0].kind: found 'List'; allowed is EndpointSlice"),
            (
                "kind: EndpointSlice",
                "1:1: metadata: missing; write namespace and labels: {kubernetes.io/service-name:",
            ),
            ("kind: EndpointSlice\nmetadata: null", "2:11: metadata: missing; write namespace and labels"),
            ("kind: EndpointSlice\nmetadata: [a]", "2:11: metadata: found a list; allowed is a mapping"),
            ("kind: EndpointSlice\nmetadata: {name: 5}", "2:18: metadata.name: found the number 5; allowed is text"),
            (f"{HEAD}addressType: IPv4\nendpoints: {{}}\n", "8:12: endpoints: found a mapping; allowed is a list"),
            (f"{HEAD}ports: []", "1:1: addressType: found nothing; allowed are IPv4 and IPv6"),
            (SLICE.replace("/v1", "/v1beta1"), "2:13: apiVersion: found 'discovery.k8s.io/v1beta1'; allowed is"),
            (SLICE.replace("true", "maybe"), "12:23: endpoints[0].conditions.ready: found 'maybe'; allowed is true"),
            (SLICE.replace("statsd, ", "53, "), "9:10: ports[0].name: found the number 53; allowed is text"),
            (SLICE.replace("8125", "0x1FBD"), "9:39: ports[0].port: found '0x1FBD'; allowed is a whole number"),
            (SLICE.replace("[10.244.1.7]", "[]"), "11:14: endpoints[0].addresses: found none; allowed is one"),
            (SLICE.replace("port: 8125", "port: !!binary x"), "9:39: ports[0].port: found the tag"),
            (f"{SLICE}addressType: IPv4\n", "14:1: addressType: repeated key: it stands in line 7 already"),
            (
                f"{HEAD}addressType: IPv4\nendpoints: &a [*a]\n",
                "8:12: endpoints[0]: found an alias of what it stands in",
            ),
            ("kind: [", "2:1: (file): YAML: "),
            ("kind: \x01", "1:7: (file): found the character U+0001"),
            ("kind: " + "[" * 100, "1:26: (file): YAML: nested more than 20 deep"),
        ],
    )
    def test_it_says_what_is_wrong_and_where(self, text, said):
        (found,) = problems(text)
        assert found.startswith(said)

    @pytest.mark.parametrize(
        ("right", "wrong", "said"),
        [
            ("endpoints:", "endpoint:", "10:1: endpoint: unknown key; did you mean 'endpoints'?"),
            ("addressType:", "adressType:", "7:1: adressType: unknown key; did you mean 'addressType'?"),
            ("labels:", "label:", "6:3: label: unknown key; did you mean 'labels'?"),
            ("nodeName:", "nodename:", "14:3: endpoints[0].nodename: unknown key; did you mean 'nodeName'?"),
            ("ready:", "redy:", "12:16: endpoints[0].conditions.redy: unknown key; did you mean 'ready'?"),
        ],
    )
    def test_it_finds_slips_in_keys(self, right, wrong, said):
        found = problems(f"{SLICE}  nodeName: a\n".replace(right, wrong))
        assert said.replace("label:", "metadata.label:") in found

    def test_it_leaves_keys_alone_that_it_does_not_know(self):
        assert parse_endpoints(SLICE + "  weight: 5\nstatus: {}\n") == (READ,)

    def test_it_does_not_let_aliases_explode(self):
        lists = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 12))
        text = f"{HEAD}addressType: IPv4\nx:\n  l0: &l0 [a, a]\n  " + lists.replace("\n", "\n  ")
        (found,) = problems(text.rstrip() + "\n")
        assert "this file stands for more than 1000000 values" in found

    def test_it_does_not_let_slices_share_endpoints_without_end(self, monkeypatch):
        monkeypatch.setattr(values, "MOST_VALUES", 50_000)
        endpoints = "- &e {addresses: [10.0.0.1]}\n" + "- *e\n" * 3000
        shared = f"{HEAD.strip()}\naddressType: IPv4\nendpoints: *all\n"
        text = in_list(f"{HEAD}addressType: IPv4\nendpoints: &all\n{endpoints}", *[shared] * 3000)
        assert "this file stands for more than" in problems(text)[-1]

    def test_it_says_which_file_it_can_not_read(self, tmp_path):
        with pytest.raises(SettingsUnreadable, match="there is no such file; write it, or take endpoints_file out"):
            read_endpoints_file(tmp_path / "none.yaml")

    def test_it_refuses_a_huge_file(self, tmp_path):
        path = tmp_path / "huge.yaml"
        with open(path, "wb") as file:
            file.truncate(MOST_BYTES + 1)
        with pytest.raises(SettingsUnreadable, match="it has over 8192 KiB"):
            read_endpoints_file(Path(path))

    def test_it_says_where_a_file_stops_being_utf8(self, tmp_path):
        path = tmp_path / "x.yaml"
        path.write_bytes(b"# fine\n# caf\xe9\n")
        with pytest.raises(SettingsError, match=r"x\.yaml:2:6: \(file\): found the byte 0xe9"):
            read_endpoints_file(path)
