"""Which addresses have a UDP socket in this network namespace."""

from collections.abc import Iterator

from proxy.node.proc_sockets import bound_sockets


def bound_addresses() -> frozenset[str]:
    """Every `ip:port` that a UDP socket is bound to. An IPv6 socket on all addresses counts for IPv4 as well."""
    return frozenset(_addresses())


def _addresses() -> Iterator[str]:
    for found in bound_sockets("udp"):
        if found.ip.version == 4:
            yield f"{found.ip}:{found.port}"
        else:
            yield f"[{found.ip}]:{found.port}"
            if found.ip.is_unspecified:
                yield f"0.0.0.0:{found.port}"
