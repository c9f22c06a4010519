"""Text to values and back: durations, sizes, addresses, names. A refusal is a ValueError that says what to write."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

from proxy.documents.reader import shown as shown

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
DURATION_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,6})?(ms|s|m|h|d)$"
SIZE_PATTERN = r"^[0-9]{1,12}(\.[0-9]{1,6})?(B|KiB|MiB|GiB)$"
PORT_NAME_PATTERN = r"^(?=.*[a-z])[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?$"
OBJECT_NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"

UNIX = "unix:"
"""Before the path of a datagram socket that stands where an address may."""

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-zµ]*)")
_LABEL = re.compile(r"[A-Za-z0-9_/-]{1,63}")
_OTHER_UNITS = {
    **dict.fromkeys(("msec", "millis", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("hr", "hour", "hours"), "h"),
    **dict.fromkeys(("day", "days"), "d"),
    **dict.fromkeys(("byte", "bytes"), "B"),
    **dict.fromkeys(("k", "ki", "kb", "kib"), "KiB"),
    **dict.fromkeys(("m", "mi", "mb", "mib"), "MiB"),
    **dict.fromkeys(("g", "gi", "gb", "gib"), "GiB"),
}


def parse_duration(text: str) -> float:
    """`250ms` to 0.25 seconds."""
    if not re.fullmatch(DURATION_PATTERN, text):
        raise ValueError(_quantity_refusal(text, SECONDS, "a duration", "250ms, 2s, 10m, 1h, 1d", "s"))
    number, unit = re.fullmatch(_QUANTITY, text).groups()  # type: ignore[union-attr]
    return float(number) * SECONDS[unit]


def format_duration(seconds: float) -> str:
    """0.25 seconds to `250ms`: the largest unit that needs no fraction."""
    if seconds == 0:
        return "0s"
    milliseconds = round(seconds * 1000, 3)
    for unit in ("d", "h", "m", "s"):
        amount, rest = divmod(milliseconds, SECONDS[unit] * 1000)
        if not rest:
            return f"{amount:.0f}{unit}"
    return f"{milliseconds:g}ms"


def parse_size(text: str) -> int:
    """`32MiB` to bytes."""
    if not re.fullmatch(SIZE_PATTERN, text):
        raise ValueError(_quantity_refusal(text, BYTES, "a size", "64KiB, 32MiB, 1GiB", "MiB"))
    number, unit = re.fullmatch(_QUANTITY, text).groups()  # type: ignore[union-attr]
    return int(float(number) * BYTES[unit])


def format_size(size: int) -> str:
    """33554432 bytes to `32MiB`: the largest unit that needs no fraction."""
    unit = next((unit for unit in ("GiB", "MiB", "KiB") if size and size % BYTES[unit] == 0), "B")
    return f"{size // BYTES[unit]}{unit}"


def _quantity_refusal(text: str, units: "dict[str, float] | dict[str, int]", what: str, like: str, usual: str) -> str:
    found = re.fullmatch(_QUANTITY, text.strip())
    if found is None:
        return f"found {shown(text)}; allowed is {what} such as {like}"
    number, unit = found.groups()
    meant = usual if not unit else unit if unit in units else _OTHER_UNITS.get(unit.lower())
    if meant not in units:
        return f"found {shown(text)}; allowed units are {', '.join(units)}"
    return f"found {shown(text)}; {what} is one number and its unit without a space: write {number}{meant}"


def join_address(ip: IPv4Address | IPv6Address, port: int) -> str:
    """`ip:port`, with brackets around an IPv6 address."""
    return f"{ip}:{port}" if ip.version == 4 else f"[{ip}]:{port}"


def split_address(address: str) -> tuple[IPv4Address | IPv6Address, int]:
    """The parts of what `parse_address` returned."""
    host, _, port = address.rpartition(":")
    return ip_address(host.strip("[]")), int(port)


def parse_address(text: str, default_port: int | None = None) -> str:
    """`IP:port` in its one canonical spelling; `IP` alone where there is a default port."""
    host, port = _split(text, default_port)
    if "%" in host and not re.fullmatch(r"[^%\s/]{1,15}", host.partition("%")[2]):
        raise ValueError(f"found {shown(text)}; after % there must be the name of a network interface")
    try:
        ip = ip_address(host)
    except ValueError:
        raise ValueError(_no_ip(text, host)) from None
    if ip.version == 6 and ip.ipv4_mapped is not None:
        raise ValueError(f"found {shown(text)}; write the IPv4 address itself: {join_address(ip.ipv4_mapped, port)}")
    if ip.is_multicast or (ip.version == 4 and ip == IPv4Address("255.255.255.255")):
        raise ValueError(f"found {shown(text)}; allowed is the address of one host, this is a group's")
    if ip.version == 6 and ip.is_link_local and not ip.scope_id:
        raise ValueError(
            f"found {shown(text)}; a link-local IPv6 address needs its interface: "
            f"write [{ip}%eth0]:{port} with the interface's name"
        )
    return join_address(ip, port)


def _split(text: str, default_port: int | None) -> tuple[str, int]:
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::(.*))?", text, re.DOTALL)
    if bracketed:
        host, port = bracketed[1], bracketed[2]
        if ":" not in host:
            raise ValueError(f"found {shown(text)}; brackets are for IPv6 addresses only")
    elif text.count(":") > 1:
        host, port = text, None
    else:
        host, colon, after = text.partition(":")
        port = after if colon else None
    if port is not None:
        return host, _port(text, port)
    if default_port is None:
        before, _, after = host.rpartition(":")
        if not bracketed and _is_ip(before):
            meant = shown(f"[{before}]:{after}")
            raise ValueError(f"found {shown(text)}; an IPv6 address needs brackets before its port: {meant}")
        like = shown(f"[{host}]:53" if ":" in host else f"{host}:53")
        raise ValueError(f"found {shown(text)}; the port is missing: write it after the address, such as {like}")
    return host, default_port


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _port(text: str, port: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", port):
        raise ValueError(f"found {shown(text)}; the port after the colon must be a number from 1 to 65535")
    if not 1 <= int(port) <= 65535:
        raise ValueError(f"found port {int(port)} in {shown(text)}; allowed is 1 to 65535")
    return int(port)


def _no_ip(text: str, host: str) -> str:
    if re.fullmatch(r"[0-9.]+", host) or (":" in host and re.fullmatch(r"[0-9A-Fa-f:.%]+", host)):
        return f"found {shown(text)}; {shown(host)} is no IP address"
    if not host:
        return f"found {shown(text)}; the IP address is missing: 0.0.0.0 or [::] mean every address of this machine"
    return f"found {shown(text)}; allowed is an IP address and no name: a name would need the DNS that this serves"


def parse_suffix(text: str) -> str:
    """A DNS name in lower case without its last dot; the root is `.`."""
    if text == ".":
        return text
    if not text.isascii():
        raise ValueError(
            f"found {shown(text)}; write an international name in its ASCII form, which starts with xn--"
        )
    if text.startswith("*."):
        raise ValueError(f"found {shown(text)}; a suffix covers everything below it: write {shown(text[2:])}")
    name = text.removesuffix(".")
    if name.startswith("."):
        raise ValueError(f"found {shown(text)}; write it without the dot in front: {shown(name.lstrip('.') or '.')}")
    labels = name.split(".")
    for label in labels:
        if not label:
            raise ValueError(f"found {shown(text)}; a part between two dots is empty")
        if len(label) > 63:
            raise ValueError(f"found {shown(text)}; the part {shown(label)} has {len(label)} bytes, allowed are 63")
        if not _LABEL.fullmatch(label):
            raise ValueError(f"found {shown(text)}; allowed in a name are letters, digits, '-', '_', '/' and dots")
    if len(name) > 253:
        raise ValueError(f"found a name of {len(name)} bytes; allowed are 253 (RFC 1035 3.1)")
    return name.lower()


def parse_service(text: str) -> str:
    """`namespace/name` of a Kubernetes Service."""
    parts = text.split("/")
    if len(parts) != 2:
        raise ValueError(f"found {shown(text)}; allowed is namespace/name, such as kube-system/kube-dns")
    for part in parts:
        if not re.fullmatch(OBJECT_NAME_PATTERN, part):
            raise ValueError(f"found {shown(text)}; {shown(part)} is no name of lower-case letters, digits and '-'")
    return text
