"""The endpoints_file: EndpointSlices as YAML, with every error at its line and column.

A file is taken as a whole or not at all; what the API server's slices may have wrong is an error here.
"""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from proxy.cluster.objects import Flaw, ObjectError, Way, dotted
from proxy.cluster.slices import KIND, SERVICE_LABEL, decode_slice
from proxy.core.endpoints import Slice
from proxy.documents.files import SettingsUnreadable, read_text
from proxy.documents.reader import TAG, Problem, Reading, SettingsError, described
from proxy.documents.values import PlainValues

__all__ = ["Problem", "SettingsError", "SettingsUnreadable", "parse_endpoints", "read_endpoints_file"]

MOST_BYTES = 8 * 1024 * 1024
"""Some ten thousand endpoints, as kubectl prints them."""

LISTS = ("List", "EndpointSliceList")
_KINDS = f"allowed are {KIND}, {' and '.join(LISTS)}"
_KEYS: Mapping[tuple[str, ...], tuple[str, ...]] = {
    (): ("kind", "apiVersion", "metadata", "addressType", "endpoints", "ports"),
    ("metadata",): ("name", "generateName", "namespace", "labels", "annotations", "resourceVersion"),
    ("endpoints",): ("addresses", "conditions", "hostname", "targetRef", "nodeName", "zone", "hints"),
    ("endpoints", "conditions"): ("ready", "serving", "terminating"),
    ("endpoints", "hints"): ("forZones", "forNodes"),
    ("ports",): ("name", "protocol", "port", "appProtocol"),
}
"""A key that is nearly one of these and none of them is a slip; other keys are of a newer Kubernetes."""


def read_endpoints_file(path: str | Path) -> tuple[Slice, ...]:
    """The slices in this file. Raises SettingsError with all that is wrong, SettingsUnreadable (an OSError)."""
    return parse_endpoints(read_text(path, "write it, or take endpoints_file out", MOST_BYTES), str(path))


def parse_endpoints(text: str, filename: str = "endpoints") -> tuple[Slice, ...]:
    """The slices in this YAML stream, without those of no Service. Raises SettingsError with all that is wrong."""
    file = _File(filename)
    for root in file.reading.stream(text):
        for node, way in file.objects(root):
            file.read(node, way)
    if file.reading.problems:
        raise SettingsError(file.reading.problems)
    return tuple(file.slices)


class _File:
    """One file while it is read."""

    def __init__(self, filename: str) -> None:
        self.reading = Reading(filename)
        self.slices: list[Slice] = []
        self._values = PlainValues(self.reading)

    def objects(self, root: Node) -> Iterator[tuple[MappingNode, Way]]:
        """The slices of one document, and where they are in it."""
        kind = self._kind(root, (), KIND, *LISTS)
        if isinstance(root, MappingNode) and kind in LISTS:
            items = self.reading.entries(root, "").get("items")
            if items is None or _is_null(items.value):
                return
            if not isinstance(items.value, SequenceNode):
                self._problem(items.value, ("items",), f"found {described(items.value)}; allowed is a list")
                return
            for index, item in enumerate(items.value.value):
                way = ("items", index)
                # The items of an EndpointSliceList have no kind when they come from the API server.
                if self._kind(item, way, KIND, default=KIND if kind == "EndpointSliceList" else ""):
                    yield item, way
        elif isinstance(root, MappingNode) and kind:
            yield root, ()

    def read(self, node: MappingNode, way: Way) -> None:
        """Take one slice, or note what is wrong with it."""
        before = len(self.reading.problems)
        content = self._values.of(node, dotted(way))
        if content.get("metadata") is None:
            label = "labels: {" + SERVICE_LABEL + ": NAME}"
            self._problem(self._at(node, ("metadata",)), (*way, "metadata"), f"missing; write namespace and {label}")
        if len(self.reading.problems) > before:
            return
        for slip, meant in _slips(content):
            self._problem(self._key(node, slip), (*way, *slip), f"unknown key; did you mean {meant!r}?")
        try:
            found = decode_slice(_with_name(content, node))
        except ObjectError as error:
            flaws: Iterable[Flaw] = [error.flaw]
        else:
            flaws = found.flaws
            if found.value is not None:
                self.slices.append(found.value)
        for flaw in flaws:
            self._problem(self._at(node, flaw.way), (*way, *flaw.way), flaw.reason)

    def _kind(self, node: Node, way: Way, *allowed: str, default: str = "") -> str:
        """The kind of an object, empty after noting why it is none of the allowed, or for an empty document."""
        if _is_null(node) and not way:
            return ""
        if not isinstance(node, MappingNode) or node.tag != TAG + "map":
            self._problem(node, way, f"found {described(node)}; {_KINDS}")
            return ""
        entry = self.reading.entries(node, dotted(way)).get("kind")
        if entry is None:
            if not default:
                self._problem(node, (*way, "kind"), f"missing; {_KINDS}")
            return default
        if isinstance(entry.value, ScalarNode) and entry.value.value in allowed:
            return str(entry.value.value)
        only = _KINDS if not way else f"allowed is {KIND}"
        self._problem(entry.value, (*way, "kind"), f"found {described(entry.value)}; {only}")
        return ""

    def _at(self, node: Node, way: Way) -> Node:
        """The node at the end of the way, or the last one there is on it."""
        for step in way:
            if isinstance(step, int):
                node = node.value[step]
            else:
                entry = self.reading.entries(node, "").get(step) if isinstance(node, MappingNode) else None
                if entry is None:
                    break
                node = entry.value
        return node

    def _key(self, node: Node, way: Way) -> Node:
        """The key that stands at the end of the way."""
        return self.reading.entries(self._at(node, way[:-1]), "")[str(way[-1])].key

    def _problem(self, node: Node, way: Way, reason: str) -> None:
        self.reading.problem(node, dotted(way), reason)


def _slips(content: Any, way: Way = (), place: tuple[str, ...] = ()) -> Iterator[tuple[Way, str]]:
    """Where keys are misspelt, and what they mean."""
    if isinstance(content, list):
        for index, item in enumerate(content):
            yield from _slips(item, (*way, index), place)
    elif isinstance(content, dict) and place in _KEYS:
        known = _KEYS[place]
        for name, inner in content.items():
            if name in known:
                yield from _slips(inner, (*way, name), (*place, name))
            elif meant := get_close_matches(name[:40], [key for key in known if key not in content], 1, 0.8):
                yield (*way, name), meant[0]


def _with_name(content: Any, node: Node) -> Any:
    """A slice written by hand needs no name: its line stands for one."""
    metadata = content["metadata"]
    if not isinstance(metadata, dict) or metadata.get("name") is not None:
        return content
    return {**content, "metadata": {**metadata, "name": f"line-{node.start_mark.line + 1}"}}


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.tag == TAG + "null"
