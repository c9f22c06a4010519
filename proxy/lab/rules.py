"""kube-proxy's rules as values: what is to be reached, read back from nft and iptables, and written in its shape.

Written only where the real kube-proxy is not built. Read from the real one, to see whether it is in step.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import NamedTuple

MASQUERADE = "0x4000"
TABLE = "kube-proxy"


class Frontend(NamedTuple):
    """What clients send to: a ClusterIP, `udp` or `tcp`, a port."""

    address: str
    protocol: str
    port: int


Rules = Mapping[Frontend, frozenset[str]]
"""The endpoints (`address:port`) of each frontend; none where it has no endpoint and clients are refused."""

_NFT_ELEMENT = re.compile(
    r'([\d.]+) \. (tcp|udp) \. (\d+)(?: comment "[^"]*")? : (?:goto (service-[^\s,]+)|(?:goto|jump) reject-chain)'
)
_NFT_CHAIN = re.compile(r"^\tchain (service-\S+) \{\n(.*?)^\t\}", re.MULTILINE | re.DOTALL)
# Since 1.36 `0 : 10.244.1.2 . 8125`; before, `goto endpoint-…__10.244.1.2/8125`; ours like the first.
_NFT_TARGET = re.compile(r"\d+ : ([\d.]+) \. (\d+)|__([\d.]+)/(\d+)")

_FRONTEND = r"-A KUBE-SERVICES -d ([\d.]+)/32 -p (tcp|udp) .*?--dport (\d+) -j "
_IPTABLES_SERVICE = re.compile(_FRONTEND + r"(KUBE-SVC-\w+)")
_IPTABLES_REJECT = re.compile(_FRONTEND + r"REJECT")
_IPTABLES_BRANCH = re.compile(r"-A (KUBE-SVC-\w+) .*-j (KUBE-SEP-\w+)")
_IPTABLES_TARGET = re.compile(r"-A (KUBE-SEP-\w+) .*--to-destination ([\d.]+:\d+)")


def from_nft(table: str) -> Rules:
    """What `nft list table ip kube-proxy` printed."""
    chains = {
        name: frozenset(f"{a or c}:{b or d}" for a, b, c, d in _NFT_TARGET.findall(body))
        for name, body in _NFT_CHAIN.findall(table)
    }
    return {
        Frontend(address, protocol, int(port)): chains.get(chain, frozenset())
        for address, protocol, port, chain in _NFT_ELEMENT.findall(table)
    }


def from_iptables(saved: str) -> Rules:
    """What `iptables-save` printed."""
    targets = dict(_IPTABLES_TARGET.findall(saved))
    chains: dict[str, set[str]] = {}
    for chain, branch in _IPTABLES_BRANCH.findall(saved):
        if branch in targets:
            chains.setdefault(chain, set()).add(targets[branch])
    refused = {
        Frontend(address, protocol, int(port)): frozenset[str]()
        for address, protocol, port in _IPTABLES_REJECT.findall(saved)
    }
    return refused | {
        Frontend(address, protocol, int(port)): frozenset(chains.get(chain, ()))
        for address, protocol, port, chain in _IPTABLES_SERVICE.findall(saved)
    }


def to_nft(rules: Rules, pods: str) -> str:
    """A table like kube-proxy's for these rules; input for `nft -f -`. `pods`: whose traffic is not masqueraded."""
    frontends = sorted(rules)
    served = [frontend for frontend in frontends if rules[frontend]]
    elements = [f"{_key(frontend)} : goto {_chain(frontend)}" for frontend in served]
    refused = [f"{_key(frontend)} : goto reject-chain" for frontend in frontends if not rules[frontend]]
    key = "type ipv4_addr . inet_proto . inet_service : verdict"
    lines = [
        f"table ip {TABLE} {{}}",
        f"delete table ip {TABLE}",
        f"table ip {TABLE} {{",
        f"set cluster-ips {{ type ipv4_addr; {_elements(sorted({one.address for one in frontends}))} }}",
        "chain reject-chain { reject; }",
    ]
    for frontend in served:
        targets = (target.rsplit(":", 1) for target in sorted(rules[frontend]))
        branches = ", ".join(f"{number} : {address} . {port}" for number, (address, port) in enumerate(targets))
        count = len(rules[frontend])
        lines += [
            f"chain {_chain(frontend)} {{",
            f"meta l4proto {frontend.protocol} dnat ip to numgen random mod {count} map {{ {branches} }}",
            "}",
        ]
    lines += [
        f"map service-ips {{ {key}; {_elements(elements)} }}",
        f"map no-endpoint-services {{ {key}; {_elements(refused)} }}",
        "chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }",
        "chain cluster-ips-check { ip daddr @cluster-ips reject; }",
        "chain services {",
        f"ip daddr @cluster-ips ip saddr != {pods} meta mark set meta mark | {MASQUERADE}",
        "ip daddr . meta l4proto . th dport vmap @service-ips",
        "}",
        "chain filter-forward { type filter hook forward priority filter;",
        "ct state new jump service-endpoints-check",
        "ct state new jump cluster-ips-check",
        "}",
        "chain filter-output { type filter hook output priority filter;",
        "ct state new jump service-endpoints-check",
        "ct state new jump cluster-ips-check",
        "}",
        "chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }",
        "chain nat-output { type nat hook output priority -100; jump services; }",
        "chain nat-postrouting { type nat hook postrouting priority srcnat;",
        f"meta mark & {MASQUERADE} != 0 masquerade fully-random",
        "}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _elements(found: list[str]) -> str:
    return f"elements = {{ {', '.join(found)} }}" if found else ""


def _key(frontend: Frontend) -> str:
    return f"{frontend.address} . {frontend.protocol} . {frontend.port}"


def _chain(frontend: Frontend) -> str:
    return f"service-{_hash(*frontend)[:8]}-{frontend.address}/{frontend.protocol}/{frontend.port}"


def _hash(*words: str | int) -> str:
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return base64.b32encode(digest).decode()[:16]


def to_iptables(rules: Rules, pods: str) -> str:
    """Chains like kube-proxy's for these rules; input for `iptables-restore`, which flushes both tables before."""
    nat = [
        "*nat",
        ":KUBE-SERVICES - [0:0]",
        ":KUBE-MARK-MASQ - [0:0]",
        ":KUBE-POSTROUTING - [0:0]",
    ]
    jumps = [
        "-A PREROUTING -j KUBE-SERVICES",
        "-A OUTPUT -j KUBE-SERVICES",
        "-A POSTROUTING -j KUBE-POSTROUTING",
        f"-A KUBE-MARK-MASQ -j MARK --set-xmark {MASQUERADE}/{MASQUERADE}",
        f"-A KUBE-POSTROUTING -m mark ! --mark {MASQUERADE}/{MASQUERADE} -j RETURN",
        "-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
    ]
    filtered = [
        "*filter",
        ":KUBE-SERVICES - [0:0]",
        "-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES",
        "-A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES",
    ]
    for frontend in sorted(rules):
        matched = (
            f"-A KUBE-SERVICES -d {frontend.address}/32 -p {frontend.protocol} "
            f"-m {frontend.protocol} --dport {frontend.port}"
        )
        targets = sorted(rules[frontend])
        if not targets:
            filtered.append(f"{matched} -j REJECT --reject-with icmp-port-unreachable")
            continue
        chain = f"KUBE-SVC-{_hash(*frontend)}"
        nat.append(f":{chain} - [0:0]")
        jumps += [f"{matched} -j {chain}", f"-A {chain} ! -s {pods} -j KUBE-MARK-MASQ"]
        for number, target in enumerate(targets):
            branch = f"KUBE-SEP-{_hash(*frontend, target)}"
            nat.append(f":{branch} - [0:0]")
            left = len(targets) - number
            chance = f"-m statistic --mode random --probability {1 / left:.10f} " if left > 1 else ""
            jumps += [
                f"-A {chain} {chance}-j {branch}",
                f"-A {branch} -p {frontend.protocol} -m {frontend.protocol} -j DNAT --to-destination {target}",
            ]
    return "\n".join([*nat, *jumps, "COMMIT", *filtered, "COMMIT", ""])
