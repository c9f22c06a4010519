"""YAML nodes as plain values, as JSON has them: text, numbers, switches, null, lists and mappings.

An alias is the same value again and costs nothing; together they may not stand for more than a bound.
"""

import re
from typing import Any

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from proxy.documents.reader import MOST_DEPTH, TAG, Reading, SettingsError, described, joined

MOST_VALUES = 1_000_000
"""Of one file, aliases counted as what they stand for."""

_SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class PlainValues:
    """The values in one file; what has none is noted in its reading."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._known: dict[int, tuple[Any, int]] = {}
        self._open: set[int] = set()
        self._count = 0

    def of(self, node: Node, key: str) -> Any:
        """The value of a node at this key. Raises SettingsError when the file stands for too many values."""
        value, count = self._read(node, key)
        self._count += count
        if self._count > MOST_VALUES:
            self._reading.problem(node, key, f"with its aliases this file stands for more than {MOST_VALUES} values")
            raise SettingsError(self._reading.problems)
        return value

    def _read(self, node: Node, key: str) -> tuple[Any, int]:
        """The value and how many it consists of."""
        if isinstance(node, ScalarNode):
            return self._scalar(node, key), 1
        if id(node) in self._known:
            return self._known[id(node)]
        if id(node) in self._open or len(self._open) >= MOST_DEPTH:
            reason = (
                "found an alias of what it stands in" if id(node) in self._open else f"more than {MOST_DEPTH} deep"
            )
            self._reading.problem(node, key, reason)
            return None, 1
        self._open.add(id(node))
        value: Any = None
        count = 1
        if isinstance(node, SequenceNode) and node.tag == TAG + "seq":
            items = [self._read(item, f"{key}[{index}]") for index, item in enumerate(node.value)]
            value = [item for item, _ in items]
            count += sum(inner for _, inner in items)
        elif isinstance(node, MappingNode) and node.tag == TAG + "map":
            value = {}
            for name, entry in self._reading.entries(node, key).items():
                value[name], inner = self._read(entry.value, joined(key, name))
                count += inner
        else:
            self._reading.problem(node, key, f"found {described(node)}; write the value without it")
        self._open.discard(id(node))
        self._known[id(node)] = value, count
        return value, count

    def _scalar(self, node: ScalarNode, key: str) -> Any:
        text = str(node.value)
        match node.tag.removeprefix(TAG):
            case "null":
                return None
            case "bool":
                return _SWITCHES.get(text.lower(), text)
            case "int":
                # Base 8, 16 and 60 stay text: nobody means them.
                return int(text) if re.fullmatch(r"-?(0|[1-9][0-9]{0,18})", text) else text
            case "float":
                return float(text) if re.fullmatch(r"-?[0-9]{1,300}\.[0-9]*", text) else text
            case "str" | "timestamp" | "merge" | "value":
                return text
        self._reading.problem(node, key, f"found {described(node)}; write the value without it")
        return None
