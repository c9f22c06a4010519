"""Rules between several keys. They see only values that are right by themselves, and report at the later one."""

import re
from collections.abc import Iterator
from typing import Any

from proxy.settings.loops import own_listener
from proxy.settings.reader import Reading
from proxy.settings.sections import Admin, Dns, Node


def check(reading: Reading) -> None:
    """Note every rule that is broken."""
    _no_listener_twice(reading)
    _no_value_twice(reading, "dns.zones[].suffix")
    _upstreams(reading)
    _times(reading)
    _relays(reading)
    _kubernetes(reading)


def _matching(reading: Reading, pattern: str) -> Iterator[tuple[str, Any]]:
    """Keys and values of one pattern, in which [] is any index."""
    expression = re.compile(re.escape(pattern).replace(r"\[\]", r"\[[0-9]+\]"))
    return ((key, value) for key, value in reading.values.items() if expression.fullmatch(key))


def _no_listener_twice(reading: Reading) -> None:
    taken: dict[tuple[str, str], str] = {}
    if "admin.listen" not in reading.nodes:
        taken["tcp", Admin().listen] = "admin.listen, by default"
    for pattern, transports in (
        ("admin.listen", ("tcp",)),
        ("dns.listen[]", ("udp", "tcp")),
        ("udp[].listen[]", ("udp",)),
    ):
        for key, address in _matching(reading, pattern):
            others = [taken[transport, address] for transport in transports if (transport, address) in taken]
            if others:
                reading.problem(reading.nodes[key], key, f"found {address}, which {others[0]} has already")
            for transport in transports:
                taken.setdefault((transport, address), key)


def _no_value_twice(reading: Reading, pattern: str) -> None:
    first: dict[Any, str] = {}
    for key, value in _matching(reading, pattern):
        if value in first:
            reading.problem(reading.nodes[key], key, f"found {value!r}, which {first[value]} has already")
        first.setdefault(value, key)


def _upstreams(reading: Reading) -> None:
    listen = [address for _, address in _matching(reading, "dns.listen[]")]
    if "dns.listen" not in reading.nodes:
        listen = list(Dns().listen)
    managed = reading.values.get("node.manage", "node" in reading.nodes)
    for form in ("upstreams", "fallback"):
        first: dict[tuple[str, str], str] = {}
        for key, address in _matching(reading, f"dns.zones[].{form}[]"):
            of_zone = key.rpartition("[")[0], address
            if of_zone in first:
                reading.problem(reading.nodes[key], key, f"found {address}, which {first[of_zone]} has already")
            first.setdefault(of_zone, key)
            own = own_listener(address, listen)
            # With node.manage a Service IP is listened on, and what this machine itself sends there is still
            # translated to the Service's endpoints.
            if own is not None and not (form == "fallback" and managed):
                also = "" if own == address else f" through {own}"
                reading.problem(
                    reading.nodes[key],
                    key,
                    f"found {address}, where this proxy listens itself{also}: questions would go round",
                )


def _times(reading: Reading) -> None:
    timeout = reading.values.get("dns.timeout", Dns().timeout)
    hold = reading.values.get("dns.serialize.hold")
    if hold is not None and hold > timeout:
        reading.problem(
            reading.nodes["dns.serialize.hold"],
            "dns.serialize.hold",
            f"found {hold:g}s; allowed is at most dns.timeout, {timeout:g}s",
        )
    node = Node()
    lease = reading.values.get("node.lease", node.lease)
    probe = reading.values.get("node.probe", node.probe)
    key = "node.lease" if "node.lease" in reading.values else "node.probe"
    if key in reading.values and lease < 2 * probe:
        reading.problem(
            reading.nodes[key],
            key,
            f"found a lease of {lease:g}s and a probe each {probe:g}s; allowed is a lease of at least two probes",
        )


def _relays(reading: Reading) -> None:
    _no_value_twice(reading, "udp[].name")
    for key, _ in _matching(reading, "udp[].service"):
        port = key.replace(".service", ".port")
        if port not in reading.nodes:
            reading.problem(reading.nodes[key], port, "missing; a service needs its port")
    for key, _ in _matching(reading, "udp[].port"):
        if key.replace(".port", ".service") not in reading.nodes:
            reading.problem(reading.nodes[key], key, "found a port without a service; allowed is both or none")
    for key, node in list(reading.nodes.items()):
        relay, dot, name = key.partition("].")
        if not relay.startswith("udp[") or not dot:
            continue
        mode = reading.values.get(f"{relay}].mode", "statsd")
        only = {"fold": "statsd", "sessions": "datagram", "per_source.lines": "statsd"}.get(name, mode)
        if mode != only:
            reading.problem(node, key, f"found it with mode: {mode}; allowed is it only with mode: {only}")
        if name == "spread" and mode == "datagram" and reading.values.get(key) in ("name", "name+tags", "all"):
            found = reading.values[key]
            reading.problem(node, key, f"found {found} with mode: datagram; allowed there is source or packet")


def _kubernetes(reading: Reading) -> None:
    others = [name for name in ("server", "token_file", "ca_file") if f"kubernetes.{name}" in reading.values]
    if "kubernetes.kubeconfig" in reading.values and others:
        key = f"kubernetes.{others[0]}"
        reading.problem(reading.nodes[key], key, "found it beside kubeconfig; allowed is one of them")
