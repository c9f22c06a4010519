"""Rules that make one question of a pair vanish on its way from a node to the DNS pods, and how many did."""

import re
from typing import Self

from proxy.lab.namespaces import Namespace

_TABLE = "sidestep-lab-lost-half"
# A sender on the node itself would be told of a `drop`, one in a pod would not. With an IP version of 0 the packet
# goes out like any other, and the kernel at the other end throws it away without a word to either.
_VANISHES = "counter @nh,0,8 set 0"
_COUNTED = re.compile(r"counter packets (\d+)")
_UDP_HEADER_BYTES, _DNS_HEADER_BYTES, _AAAA = 8, 12, 28


def second_of_a_flow(pods: str) -> str:
    """To pods of this network: all that follows the first packet of a flow before anybody has answered.

    So whoever comes second in the race is lost, each time.
    """
    return _table(pods, "ct state new ct original packets > 1")


def first_aaaa(pods: str, name: str) -> str:
    """To pods of this network: the first question for AAAA of each name, of names that are as long as this one.

    The first label tells them apart; it has at most 16 letters and is as long as this one's.
    """
    at = 8 * (_UDP_HEADER_BYTES + _DNS_HEADER_BYTES)
    label = f"@th,{at + 8},{8 * len(name.partition('.')[0])}"
    kind = f"@th,{at + 8 * (len(name) + 2)},16"
    asked = f"set asked {{ typeof {label}; flags dynamic; size 65535; }}"
    return _table(pods, f"{kind} {_AAAA} {label} != @asked add @asked {{ {label} }}", asked)


def _table(pods: str, matched: str, asked: str = "") -> str:
    return f"""\
table ip {_TABLE} {{
  {asked}
  chain leaving {{
    type filter hook postrouting priority srcnat + 10;
    ip daddr {pods} udp dport 53 {matched} {_VANISHES}
  }}
}}
"""


class LostHalf:
    """One of these on a node, while the context lasts."""

    def __init__(self, node: Namespace, rule: str) -> None:
        self._node = node
        self._rule = rule

    def __enter__(self) -> Self:
        self._load(self._rule)
        return self

    def __exit__(self, *_: object) -> None:
        self._load("")

    def count(self) -> int:
        """How many have vanished so far."""
        return vanished(self._node.run("nft", "list", "table", "ip", _TABLE))

    def _load(self, rule: str) -> None:
        self._node.run("nft", "-f", "-", given=f"table ip {_TABLE} {{}}\ndelete table ip {_TABLE}\n{rule}")


def vanished(listed: str) -> int:
    """What the counter in such a table says, as nft lists it."""
    counted = _COUNTED.search(listed)
    if counted is None:
        raise ValueError(f"no counter in {listed!r}")
    return int(counted[1])
