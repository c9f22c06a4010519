"""The nameservers of a resolv.conf, read as glibc reads them (resolv.conf(5))."""

from pathlib import Path

from proxy.documents.files import SettingsUnreadable, read_bytes
from proxy.settings.reader import MOST_BYTES
from proxy.settings.units import parse_address

MOST_NAMESERVERS = 3
"""MAXNS of resolv.h; what comes after is ignored by every stub resolver."""


def read_resolv_conf(path: str | Path) -> list[str]:
    """Its nameservers as `ip:53`, three at most, in their order and each once; IPv6 scopes are kept.

    Raises SettingsUnreadable when it can't be read or names no server that could be asked.
    """
    servers: list[str] = []
    content = read_bytes(path, "list addresses under upstreams instead", MOST_BYTES)
    for line in content.decode("latin-1").split("\n"):
        words = line.split()
        if not line.startswith("nameserver") or len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            address = parse_address(words[1].strip("[]"), default_port=53)
        except ValueError:
            continue
        if address not in servers:
            servers.append(address)
    if not servers:
        raise SettingsUnreadable(
            path, "it has no nameserver line with an IP address; list addresses under upstreams instead"
        )
    return servers[:MOST_NAMESERVERS]
