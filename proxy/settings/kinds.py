"""What may stand at a key: each kind reads its YAML node, prints a value back, and tells its JSON Schema.

A kind stands in the annotation of a field (`Annotated[float, Duration(...), "what it decides"]`); a struct of such
fields is read by `Section`. All errors go to the `Reading`; a value that is wrong is `WRONG`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol, get_args

import msgspec
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from proxy.settings.reader import TAG, Reading, described, joined, unknown_key


class _Wrong(Enum):
    WRONG = "wrong"


WRONG: Final = _Wrong.WRONG
Schema = dict[str, Any]


class Kind(Protocol):
    """What a field's annotation must offer."""

    def read(self, node: Node, key: str, reading: Reading) -> Any:
        """The value at this node, or `WRONG` after noting why."""

    def plain(self, value: Any) -> Any:
        """The value as it would be written in the file."""

    def schema(self) -> Schema:
        """The JSON Schema of what may be written."""


@dataclass(frozen=True)
class Nullable:
    """The kind, or null."""

    kind: Kind

    def read(self, node: Node, key: str, reading: Reading) -> Any:
        if isinstance(node, ScalarNode) and node.tag == TAG + "null":
            return None
        return self.kind.read(node, key, reading)

    def plain(self, value: Any) -> Any:
        return None if value is None else self.kind.plain(value)

    def schema(self) -> Schema:
        return {"oneOf": [{"type": "null"}, self.kind.schema()]}


@dataclass(frozen=True)
class ListOf:
    """From `least` to `most` of a kind, as a tuple; `like` is an example."""

    kind: Kind
    most: int
    least: int = 1
    like: str = ""

    def read(self, node: Node, key: str, reading: Reading) -> Any:
        if not isinstance(node, SequenceNode) or node.tag != TAG + "seq":
            like = f", such as {self.like}" if self.like else ""
            reading.problem(node, key, f"found {described(node)}; allowed is a list{like}")
            return WRONG
        if not self.least <= len(node.value) <= self.most:
            found = f"a list of {len(node.value)}" if node.value else "an empty list"
            reading.problem(node, key, f"found {found}; allowed is a list of {self.least} to {self.most}")
            return WRONG
        values = [self.kind.read(item, f"{key}[{index}]", reading) for index, item in enumerate(node.value)]
        return WRONG if WRONG in values else tuple(values)

    def plain(self, value: Any) -> Any:
        return [self.kind.plain(item) for item in value]

    def schema(self) -> Schema:
        return {"type": "array", "minItems": self.least, "maxItems": self.most, "items": self.kind.schema()}


@dataclass(frozen=True)
class Section:
    """A mapping with the keys of a struct."""

    struct: type[msgspec.Struct]

    def read(self, node: Node, key: str, reading: Reading) -> Any:
        if not isinstance(node, MappingNode) or node.tag != TAG + "map":
            reading.problem(node, key, f"found {described(node)}; {self._allowed(node, key)}")
            return WRONG
        entries = reading.entries(node, key)
        known = {name: kind for name, kind, _ in fields(self.struct)}
        read: dict[str, Any] = {}
        for name, entry in entries.items():
            path = joined(key, name)
            reading.nodes[path] = entry.value
            if name in known:
                read[name] = known[name].read(entry.value, path, reading)
            else:
                reading.problem(entry.key, path, unknown_key(name, known, reading.places))
        for field in msgspec.structs.fields(self.struct):
            if field.required and field.name not in entries:
                reading.problem(node, joined(key, field.name), "missing; it has no default")
                read[field.name] = WRONG
        if WRONG in read.values():
            return WRONG
        return self.struct(**read)

    def _allowed(self, node: Node, key: str) -> str:
        names = ", ".join(name for name, _, _ in fields(self.struct))
        if isinstance(node, ScalarNode) and node.tag == TAG + "null":
            return f"write {key}: {{}} for the defaults, or leave the key out"
        return f"allowed is a mapping of {names}"

    def plain(self, value: Any) -> Any:
        return {name: kind.plain(getattr(value, name)) for name, kind, _ in fields(self.struct)}

    def schema(self) -> Schema:
        properties: Schema = {}
        required = []
        infos = {info.name: info for info in msgspec.structs.fields(self.struct)}
        for name, kind, about in fields(self.struct):
            properties[name] = {"description": about, **kind.schema()}
            if infos[name].required:
                required.append(name)
            elif not isinstance(kind, Section) and infos[name].default is not msgspec.NODEFAULT:
                properties[name]["default"] = kind.plain(infos[name].default)
        schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
        return {**schema, "required": required} if required else schema


def fields(struct: type[msgspec.Struct]) -> Iterator[tuple[str, Kind, str]]:
    """Name, kind and description of each field."""
    for field in msgspec.structs.fields(struct):
        _, kind, about = get_args(field.type)
        yield field.name, kind, about
