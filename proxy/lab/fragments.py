"""IP fragments that one node sends to another, and a rule on the other that drops them."""

from typing import Self

from proxy.lab.namespaces import Namespace
from proxy.lab.nodes import OVERLAY

_TABLE = "sidestep-lab-fragments"
# Before connection tracking puts them together again (priority -400).
_DROP = f"""\
table ip {_TABLE} {{
  chain arriving {{
    type filter hook prerouting priority -450;
    iifname {OVERLAY} ip frag-off & 0x3fff != 0 counter drop
  }}
}}
"""


class Fragments:
    """Those from `source` to `destination`; as a context manager it counts from its start and takes its rule away."""

    def __init__(self, source: Namespace, destination: Namespace) -> None:
        self._source = source
        self._destination = destination

    def __enter__(self) -> Self:
        self._before = self._created()
        return self

    def __exit__(self, *_: object) -> None:
        self._destination.run("nft", "-f", "-", given=f"table ip {_TABLE} {{}}\ndelete table ip {_TABLE}\n")

    def drop(self) -> None:
        """From now on none gets further than the end of the overlay."""
        self._destination.run("nft", "-f", "-", given=_DROP)

    def sent(self) -> int:
        """How many the source has made since the start, by its kernel's counter."""
        return self._created() - self._before

    def _created(self) -> int:
        return fragments_created(self._source.run("cat", "/proc/net/snmp"))


def fragments_created(snmp: str) -> int:
    """FragCreates of /proc/net/snmp."""
    names, values = (line.split() for line in snmp.splitlines() if line.startswith("Ip:"))
    return int(dict(zip(names, values, strict=True))["FragCreates"])
