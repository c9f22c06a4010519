"""The kinds of single values: numbers, switches, quantities, addresses, names, paths."""

import re
from dataclasses import dataclass
from typing import Any

from yaml.nodes import Node, ScalarNode

from proxy.settings import units
from proxy.settings.kinds import WRONG, Schema
from proxy.settings.reader import TAG, Reading, described


class Leaf:
    """A single value; subclasses only say how its node is parsed."""

    def read(self, node: Node, key: str, reading: Reading) -> Any:
        try:
            value = self.parse(node)
        except ValueError as refusal:
            reading.problem(node, key, str(refusal))
            return WRONG
        reading.found(key, node, value)
        return value

    def parse(self, node: Node) -> Any:
        """Raises ValueError with the reason."""
        raise NotImplementedError

    def plain(self, value: Any) -> Any:
        return value


def _text(node: Node, allowed: str, quotable: bool = False) -> str:
    """The text of a node that must be text; `quotable` where a number or a switch in quotes could be meant."""
    if not isinstance(node, ScalarNode):
        raise ValueError(f"found {described(node)}; allowed is {allowed}")
    tag = node.tag.removeprefix(TAG)
    if tag == "str":
        return str(node.value)
    hint = (
        f': to mean the text, write "{units.shown(node.value)[1:-1]}"'
        if quotable and tag in ("int", "float", "bool", "timestamp")
        else ""
    )
    raise ValueError(f"found {described(node)}; allowed is {allowed}{hint}")


def _integer(node: Node, allowed: str) -> int:
    if not isinstance(node, ScalarNode) or node.tag not in (TAG + "int", TAG + "float", TAG + "str"):
        raise ValueError(f"found {described(node)}; allowed is {allowed}")
    if not re.fullmatch(r"0|-?[1-9][0-9]{0,17}", node.value):
        why = " (YAML reads it in base 8, 16 or 60)" if node.tag == TAG + "int" and node.value[:1] != "-" else ""
        raise ValueError(f"found {described(node)}{why}; allowed is {allowed}")
    if node.tag == TAG + "str":
        raise ValueError(f"found the text {units.shown(node.value)}; write the number without quotes: {node.value}")
    return int(node.value)


@dataclass(frozen=True)
class Integer(Leaf):
    """A number from `least` to `most`; `why` is the reason for the bounds."""

    least: int
    most: int
    why: str

    def parse(self, node: Node) -> int:
        allowed = f"a number from {self.least} to {self.most}"
        value = _integer(node, allowed)
        if not self.least <= value <= self.most:
            raise ValueError(f"found {value}; allowed is {self.least} to {self.most} ({self.why})")
        return value

    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


class Flag(Leaf):
    """true or false."""

    def parse(self, node: Node) -> bool:
        if isinstance(node, ScalarNode) and node.tag == TAG + "bool":
            return node.value.lower() in ("true", "yes", "on")
        quoted = isinstance(node, ScalarNode) and node.value.lower() in ("true", "false")
        raise ValueError(f"found {described(node)}; allowed is true or false{' without quotes' if quoted else ''}")

    def schema(self) -> Schema:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Quantity(Leaf):
    """A number with its unit, between two others; `zero_is` says what 0 means where it means something."""

    least: str
    most: str
    why: str
    zero_is: str | None = None

    what = "a quantity"
    zero = "0"
    pattern = ""
    usual = ""

    def value(self, text: str) -> float:
        raise NotImplementedError

    def parse(self, node: Node) -> float:
        if isinstance(node, ScalarNode) and node.tag in (TAG + "int", TAG + "float"):
            raise ValueError(
                f"found {described(node)}; {self.what} needs its unit: write {self.with_unit(node.value)}"
            )
        text = _text(node, f"{self.what} such as {self.usual}")
        value = self.value(text)
        if value == 0 and self.zero_is:
            return value
        if not self.value(self.least) <= value <= self.value(self.most):
            off = f", or {self.zero} ({self.zero_is})" if self.zero_is else ""
            raise ValueError(f"found {text}; allowed is {self.least} to {self.most}{off} ({self.why})")
        return value

    def with_unit(self, number: str) -> str:
        raise NotImplementedError

    def schema(self) -> Schema:
        limits = f"{self.least} to {self.most}" + (f", or {self.zero}: {self.zero_is}" if self.zero_is else "")
        return {"type": "string", "pattern": self.pattern, "$comment": f"{limits} ({self.why})"}


class Duration(Quantity):
    """Seconds as a float, written as `250ms`, `2s`, `10m`, `1h`, `1d`."""

    what = "a duration"
    zero = "0s"
    pattern = units.DURATION_PATTERN
    usual = "2s"

    def value(self, text: str) -> float:
        return units.parse_duration(text)

    def with_unit(self, number: str) -> str:
        return f"{number}s" if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", number) else self.usual

    def plain(self, value: Any) -> str:
        return units.format_duration(value)


class Size(Quantity):
    """Bytes as an int, written as `64KiB`, `32MiB`, `1GiB`."""

    what = "a size"
    zero = "0B"
    pattern = units.SIZE_PATTERN
    usual = "32MiB"

    def value(self, text: str) -> float:
        return units.parse_size(text)

    def with_unit(self, number: str) -> str:
        return units.format_size(int(number)) if re.fullmatch(r"[1-9][0-9]{3,12}", number) else self.usual

    def plain(self, value: Any) -> str:
        return units.format_size(value)


@dataclass(frozen=True)
class Choice(Leaf):
    """One of a few words."""

    words: tuple[str, ...]

    def parse(self, node: Node) -> str:
        text = _text(node, " or ".join(self.words))
        if text not in self.words:
            raise ValueError(f"found {units.shown(text)}; allowed is {', '.join(self.words)}")
        return text

    def schema(self) -> Schema:
        return {"enum": list(self.words)}


@dataclass(frozen=True)
class Address(Leaf):
    """`IP:port`; `IP` alone where there is a default port. `listening` may be every address, or a unix: path."""

    default_port: int | None = None
    listening: bool = False
    unix: bool = False

    def parse(self, node: Node) -> str:
        if isinstance(node, ScalarNode) and node.tag == TAG + "int" and ":" in node.value:
            raise ValueError(
                f"found {node.value}, which YAML reads as a number in base 60; allowed is {self._allowed}"
            )
        text = _text(node, self._allowed)
        if self.unix and text.startswith(units.UNIX):
            return f"{units.UNIX}{_socket_path(text.removeprefix(units.UNIX))}"
        address = units.parse_address(text, self.default_port)
        if not self.listening and units.split_address(address)[0].is_unspecified:
            raise ValueError(f"found {units.shown(text)}; allowed is the address of a server, this stands for any")
        return address

    @property
    def _allowed(self) -> str:
        return "IP:port, such as 192.0.2.1:53 or [2001:db8::1]:53"

    def schema(self) -> Schema:
        port = "" if self.default_port is None else "?"
        alone = "" if self.default_port is None else r"|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(%[^%]+)?"
        unix = rf"|{units.UNIX}/.+" if self.unix else ""
        return {"type": "string", "pattern": rf"^([0-9.]+(:[0-9]+){port}|\[[^\]]+\](:[0-9]+){port}{alone}{unix})$"}


@dataclass(frozen=True)
class Text(Leaf):
    """Text that matches `pattern`; `allowed` says it in words."""

    pattern: str
    allowed: str

    def parse(self, node: Node) -> str:
        text = _text(node, self.allowed, quotable=True)
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"found {units.shown(text)}; allowed is {self.allowed}")
        return text

    def schema(self) -> Schema:
        return {"type": "string", "pattern": self.pattern}


class Suffix(Leaf):
    """A DNS name."""

    def parse(self, node: Node) -> str:
        return units.parse_suffix(_text(node, "a DNS name such as cluster.local, or .", quotable=True))

    def schema(self) -> Schema:
        return {"type": "string", "pattern": r"^(\.|[A-Za-z0-9_/-]{1,63}(\.[A-Za-z0-9_/-]{1,63})*\.?)$"}


class Service(Leaf):
    """`namespace/name`."""

    def parse(self, node: Node) -> str:
        return units.parse_service(_text(node, "namespace/name of a Service, such as kube-system/kube-dns"))

    def schema(self) -> Schema:
        name = units.OBJECT_NAME_PATTERN.strip("^$")
        return {"type": "string", "pattern": f"^{name}/{name}$"}


class Port(Leaf):
    """The name or number of an endpoint's port."""

    def parse(self, node: Node) -> str | int:
        allowed = "a port's name, or its number from 1 to 65535"
        if isinstance(node, ScalarNode) and node.tag == TAG + "str" and not node.value.isdigit():
            if not re.fullmatch(units.PORT_NAME_PATTERN, node.value):
                raise ValueError(f"found {units.shown(node.value)}; allowed is {allowed}")
            return str(node.value)
        number = _integer(node, allowed)
        if not 1 <= number <= 65535:
            raise ValueError(f"found {number}; allowed is 1 to 65535")
        return number

    def schema(self) -> Schema:
        return {
            "oneOf": [
                {"type": "integer", "minimum": 1, "maximum": 65535},
                {"type": "string", "pattern": units.PORT_NAME_PATTERN},
            ]
        }


@dataclass(frozen=True)
class FilePath(Leaf):
    """A path; a socket's must be absolute and fit into the kernel's sockaddr_un."""

    socket: bool = False

    def parse(self, node: Node) -> str:
        text = _text(node, "a path", quotable=True)
        if self.socket:
            return _socket_path(text)
        if not text or "\0" in text:
            raise ValueError(f"found {units.shown(text)}; allowed is the path of a file")
        return text

    def schema(self) -> Schema:
        return {"type": "string", "pattern": "^/.+$" if self.socket else "^.+$"}


def _socket_path(text: str) -> str:
    if not text.startswith("/") or text.endswith("/") or "\0" in text:
        raise ValueError(f"found {units.shown(text)}; allowed is the absolute path of a socket")
    if len(text.encode(errors="surrogateescape")) > 107:
        raise ValueError(f"found a path of {len(text.encode())} bytes; a socket's may have 107 (unix(7))")
    return text
