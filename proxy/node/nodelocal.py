"""What NodeLocal DNSCache has on this node: its interface with addresses, and rules that keep packets untracked.

It only looks. iptables-legacy's rules are not among what it can see.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from proxy.node import addresses, nft
from proxy.node.plan import NODELOCAL_LINK
from proxy.node.table import Entry, NodeListener

_RAW = {4: "table ip raw", 6: "table ip6 raw"}
"""Where iptables-nft has the table `raw`."""


def held() -> frozenset[str]:
    """The IPs on its interface. Raises NodeError."""
    return frozenset(address.ip for address in addresses.present() if address.interface == NODELOCAL_LINK)


def untracked(listeners: Iterable[NodeListener]) -> list[str]:
    """Those listeners, by name, whose packets an iptables rule keeps untracked: no fallback ever gets them.

    Raises NodeError.
    """
    listeners = [one for one in listeners if one.leasable]
    ruled = set()
    for version in {one.version for one in listeners}:
        ruled |= set(_untracked(nft.listing(_RAW[version]) or ()))
    return [one.name for one in listeners if (one.ip, one.transport, one.port) in ruled]


def _untracked(entries: Iterable[Entry]) -> Iterator[tuple[str, str, int]]:
    """Address, transport and port of every rule of PREROUTING with the target NOTRACK, which nft's JSON calls CT."""
    for entry in entries:
        match entry:
            case "rule", {"chain": "PREROUTING", "expr": [*expressions]} if any(map(_is_notrack, expressions)):
                matched = dict(_matched(expressions))
                port = next(((name[0], matched[name]) for name in matched if name[1] == "dport"), None)
                ip = next((matched[name] for name in matched if name[1] == "daddr"), None)
                if port is not None and isinstance(ip, str) and isinstance(port[1], int):
                    yield ip, port[0], port[1]


def _is_notrack(expression: object) -> bool:
    match expression:
        case {"notrack": _} | {"xt": {"name": "CT" | "NOTRACK"}}:
            return True
    return False


def _matched(expressions: Iterable[object]) -> Iterator[tuple[tuple[str, str], Any]]:
    for expression in expressions:
        match expression:
            case {"match": {"op": "==", "left": {"payload": {"protocol": protocol, "field": field}}, "right": right}}:
                yield (protocol, field), right
