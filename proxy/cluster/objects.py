"""One Kubernetes object as it comes, from the API server or a file: who it is, and what in it can't be used."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Generic, TypeVar

import msgspec

from proxy.documents.reader import joined, shown

MOST_FLAWS = 20
"""Of one object; who made twenty mistakes in it made the rest in the same way."""

Way = tuple[str | int, ...]
"""From the object to what is meant: keys and indexes."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Flaw:
    """A part of an object that is left out, and why."""

    way: Way
    reason: str
    outcome: str = ""
    """What is done about it, where the rest of the object is used."""

    def __str__(self) -> str:
        text = f"{dotted(self.way)}: {self.reason}" if self.way else self.reason
        return f"{text}; {self.outcome}" if self.outcome else text


class ObjectError(ValueError):
    """A whole object that can't be used. The text names it, as far as it has a name; `flaw` is why."""

    def __init__(self, flaw: Flaw, whose: str = "an object") -> None:
        super().__init__(f"{whose}: {flaw}")
        self.flaw = flaw


@dataclass(frozen=True, slots=True)
class Decoded(Generic[T]):
    """An object of which at least the name could be read."""

    kind: str
    namespace: str
    name: str
    version: int
    value: T | None
    """None if it is to be ignored: nothing of it is for us."""
    flaws: tuple[Flaw, ...] = ()

    @property
    def problems(self) -> list[str]:
        """Its flaws as one line each, which name it."""
        return [f"{named(self.kind, self.namespace, self.name)}: {flaw}" for flaw in self.flaws]


class Metadata(msgspec.Struct, rename="camel"):
    """What of an object's metadata counts here."""

    name: str | None = None
    namespace: str | None = None
    labels: dict[str, str | None] | None = None
    annotations: dict[str, str | None] | None = None
    resource_version: str | int | None = None

    def label(self, key: str) -> str:
        return (self.labels or {}).get(key) or ""

    def annotation(self, key: str) -> str:
        return (self.annotations or {}).get(key) or ""

    @property
    def version(self) -> int:
        text = str(self.resource_version)
        return int(text) if re.fullmatch("[0-9]{1,20}", text) else 0


class Flaws:
    """Collects what is left out of one object, up to a bound."""

    def __init__(self) -> None:
        self._flaws: list[Flaw] = []
        self._more = 0

    def add(self, way: Way, reason: str, outcome: str) -> None:
        if len(self._flaws) < MOST_FLAWS:
            self._flaws.append(Flaw(way, reason, outcome))
        else:
            self._more += 1

    def all(self) -> tuple[Flaw, ...]:
        more = [Flaw((), f"{self._more} more of the kind")] if self._more else []
        return (*self._flaws, *more)


def opened(
    given: bytes | msgspec.Raw | Mapping[str, Any], kind: str, api_version: str
) -> tuple[Mapping[str, Any], Metadata]:
    """The object as a mapping, and its metadata. Raises ObjectError, also if it is of another kind.

    Items of a list from the API server carry neither kind nor version, so both may be absent.
    """
    content: Any = given
    if isinstance(given, bytes | msgspec.Raw):
        try:
            content = msgspec.json.decode(given)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ObjectError(Flaw((), f"this is no JSON: {error}")) from None
    if not isinstance(content, Mapping):
        raise ObjectError(Flaw((), f"found {described(content)}; allowed is {article(kind)}"))
    found = content.get("kind")
    if found is not None and found != kind:
        raise ObjectError(Flaw(("kind",), f"found {described(found)}; allowed is {kind}"))
    metadata = converted(content.get("metadata") or {}, Metadata, ("metadata",))
    if isinstance(metadata, Flaw):
        raise ObjectError(metadata, article(kind))
    if not metadata.name:
        raise ObjectError(Flaw(("metadata", "name"), "missing"), article(kind))
    found = content.get("apiVersion")
    if found is not None and found != api_version:
        raise ObjectError(
            Flaw(("apiVersion",), f"found {described(found)}; allowed is {api_version}"),
            named(kind, metadata.namespace or "default", metadata.name),
        )
    return content, metadata


def converted(content: Any, into: type[T], way: Way) -> T | Flaw:
    """The value of this type, or where beneath `way` it isn't one."""
    try:
        return msgspec.convert(content, into)
    except msgspec.ValidationError as error:
        return _type_flaw(str(error), content, way)


def listed(content: Mapping[str, Any], way: Way, whose: str) -> Sequence[Any]:
    """The list at the last key of `way`, empty if it is null or absent. Raises ObjectError if it is no list."""
    found = content.get(str(way[-1]))
    if found is None:
        return ()
    if not isinstance(found, list | tuple):
        raise ObjectError(Flaw(way, f"found {described(found)}; allowed is a list"), whose)
    return found


def ip_of(text: Any, family: str = "") -> str:
    """The canonical text of a host's address. Raises ValueError with what is wrong with it."""
    allowed = f"{family} address".strip() if family else "IP address"
    try:
        ip: IPv4Address | IPv6Address | None = ip_address(text) if isinstance(text, str) else None
    except ValueError:
        ip = None
    if (
        ip is None
        or not re.fullmatch(r"[0-9a-f.:]+(%[\w.-]{1,15})?", str(ip), re.ASCII)
        or (family and family != f"IPv{ip.version}")
    ):
        raise ValueError(f"{described(text)} is no {allowed}")
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        raise ValueError(f"{described(text)} is an IPv4 address in an IPv6 one")
    if ip.is_multicast or ip.is_unspecified or str(ip) == "255.255.255.255":
        raise ValueError(f"{described(text)} is no address of one host")
    return str(ip)


def port_flaw(number: int) -> str:
    """What is wrong with a port number; empty if nothing is."""
    return "" if 1 <= number <= 65535 else f"found {str(number)[:20]}; allowed is 1 to 65535"


def described(content: Any) -> str:
    """What stands there, for an error."""
    if content is None:
        return "nothing"
    if isinstance(content, str):
        return shown(content)
    if isinstance(content, bool):
        return "true" if content else "false"
    if isinstance(content, int | float):
        return f"the number {str(content)[:20]}"
    return "a list" if isinstance(content, list | tuple) else "a mapping"


def named(kind: str, namespace: str, name: str) -> str:
    """`EndpointSlice monitoring/statsd-abc`, on one line whatever the name is."""
    whole = f"{namespace}/{name}"
    return f"{kind} {whole if whole.isprintable() and len(whole) <= 320 else shown(whole)}"


def dotted(way: Way) -> str:
    """`endpoints[3].addresses[0]`."""
    text = ""
    for step in way:
        text = f"{text}[{step}]" if isinstance(step, int) else joined(text, step)
    return text


def article(kind: str) -> str:
    """The kind with its article."""
    return f"an {kind}" if kind[0] in "AEIOU" else f"a {kind}"


_NAMES = {"object": "a mapping", "array": "a list", "str": "text", "int": "a whole number", "bool": "true or false"}


def _type_flaw(message: str, content: Any, way: Way) -> Flaw:
    """From "Expected `bool`, got `str` - at `$.conditions.ready`"; msgspec tells no index within a list."""
    reason, _, path = message.partition(" - at ")
    before_list, list_there, _ = path.strip("`").removeprefix("key in ").removeprefix("$").partition("[")
    steps = tuple(filter(None, before_list.split(".")))
    missing = re.fullmatch(r"Object missing required field `([^`]*)`", reason)
    if missing:
        return Flaw((*way, *steps, missing[1]), "missing")
    types = re.fullmatch(r"Expected `([^`]*)`, got `([^`]*)`", reason)
    if types:
        found = _NAMES.get(types[2], types[2])
        if not list_there:
            found = described(reduce(lambda inner, step: inner[step], steps, content))
        allowed = " or ".join(_NAMES.get(name, name) for name in types[1].split(" | ") if name != "null")
        reason = f"found {found}; allowed is {allowed}"
    return Flaw((*way, *steps), reason)
