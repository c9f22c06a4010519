"""YAML with a position for everything: text to nodes, nodes to entries, and all problems of one file.

Only the node tree of PyYAML is used, never its objects, so a tag can't construct anything and an alias costs nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MOST_PROBLEMS = 200
MOST_DEPTH = 20
MOST_MERGED = 50_000
"""Keys that merge keys (`<<`) may bring in one file; chains of them grow with the square of its size."""

TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = {"map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value"}
WHOLE_FILE = "(file)"
"""Stands for the key in an error that belongs to none."""

_Nodes = TypeVar("_Nodes")


class SettingsError(Exception):
    """A file that can be read and is wrong: all its problems, in the order of their lines."""

    def __init__(self, problems: Iterable["Problem"]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.line, problem.column)))
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong; line and column count from 1."""

    file: str
    line: int
    column: int
    key: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.key}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a mapping and its value."""

    key: Node
    value: Node


class Reading:
    """What was found in one file so far: the entries of its mappings, and what is wrong."""

    def __init__(self, filename: str) -> None:
        self.filename = filename
        self.problems: list[Problem] = []
        self._entries: dict[int, dict[str, Entry]] = {}
        self._open: set[int] = set()
        self._merged_keys = 0

    def problem(self, node: Node, key: str, reason: str) -> None:
        """Note a problem. Raises SettingsError when there are so many that no one reads further."""
        self.problem_at(node.start_mark.line, node.start_mark.column, key, reason)

    def problem_at(self, line: int, column: int, key: str, reason: str) -> None:
        """The same at a place that counts from 0."""
        self.problems.append(Problem(self.filename, line + 1, column + 1, key or WHOLE_FILE, reason))
        if len(self.problems) >= MOST_PROBLEMS:
            self.problems.append(
                Problem(
                    self.filename,
                    line + 1,
                    column + 1,
                    WHOLE_FILE,
                    f"more than {MOST_PROBLEMS} problems, stopped here",
                )
            )
            raise SettingsError(self.problems)

    def compose(self, text: str) -> Node | None:
        """The root of the only document in `text`, None when empty. Raises SettingsError for what isn't YAML."""
        return self._loaded(_Loader, text, _single_node)

    def stream(self, text: str) -> list[Node]:
        """The roots of all documents in `text`. Raises SettingsError for what isn't YAML.

        For large files: libyaml scans it where PyYAML has that, and says what is wrong in its own words.
        """
        return self._loaded(_StreamLoader, text, _all_nodes)

    def _loaded(self, load: Callable[[str], Any], text: str, compose: Callable[[Any], _Nodes]) -> _Nodes:
        try:
            loader = load(text)
        except yaml.reader.ReaderError as error:
            raise self._unreadable_character(text, error) from None
        try:
            return compose(loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line, mark.column) if mark else (0, 0)
            self.problem_at(line, column, WHOLE_FILE, _syntax_reason(error, line, text))
        except (ValueError, OverflowError):
            # PyYAML lets chr() and int() fail on escapes such as \UFFFFFFFF and on %YAML versions.
            line, column = getattr(loader, "line", 0), getattr(loader, "column", 0)
            self.problem_at(line, column, WHOLE_FILE, "YAML: a number here is out of range")
        finally:
            loader.dispose()
        raise SettingsError(self.problems)

    def entries(self, node: Node, key: str) -> dict[str, Entry]:
        """A mapping's entries with its merge keys resolved; notes repeated keys and keys that are no text."""
        known = self._entries.get(id(node))
        if known is not None:
            return known
        own: dict[str, Entry] = {}
        merged: list[dict[str, Entry]] = []
        self._open.add(id(node))
        for key_node, value_node in node.value:
            if key_node.tag == TAG + "merge":
                merged += self._merged(value_node, key)
            elif not isinstance(key_node, ScalarNode):
                self.problem(key_node, key, "found a list or mapping as a key; allowed are words")
            elif key_node.value in own:
                first = own[key_node.value].key.start_mark.line + 1
                self.problem(
                    key_node, joined(key, key_node.value), f"repeated key: it stands in line {first} already"
                )
            else:
                own[key_node.value] = Entry(key_node, value_node)
        self._open.discard(id(node))
        entries: dict[str, Entry] = {}
        # Of several merged mappings the first one wins, and the mapping's own keys win over all.
        for mapping in (*reversed(merged), own):
            entries.update(mapping)
        self._entries[id(node)] = entries
        return entries

    def _merged(self, node: Node, key: str) -> list[dict[str, Entry]]:
        if isinstance(node, SequenceNode):
            # The same alias any number of times adds nothing.
            mappings = list({id(item): item for item in node.value}.values())
        else:
            mappings = [node]
        merged = []
        for mapping in mappings:
            if not isinstance(mapping, MappingNode):
                self.problem(
                    mapping, joined(key, "<<"), f"found {described(mapping)}; allowed is an alias of a mapping"
                )
            elif id(mapping) in self._open:
                self.problem(node, joined(key, "<<"), "found a mapping that contains itself")
            elif len(self._open) >= MOST_DEPTH:
                self.problem(node, joined(key, "<<"), f"merged more than {MOST_DEPTH} deep")
            else:
                merged.append(self.entries(mapping, key))
                self._merged_keys += len(merged[-1])
                if self._merged_keys > MOST_MERGED:
                    self.problem(node, joined(key, "<<"), f"merge keys bring more than {MOST_MERGED} keys")
                    raise SettingsError(self.problems)
        return merged

    def _unreadable_character(self, text: str, error: yaml.reader.ReaderError) -> SettingsError:
        before = text[: error.position]
        line = before.count("\n")
        column = error.position - (before.rfind("\n") + 1)
        code = error.character if isinstance(error.character, int) else ord(error.character)
        self.problem_at(line, column, WHOLE_FILE, f"found the character U+{code:04X}, which YAML doesn't allow")
        return SettingsError(self.problems)


def _single_node(loader: Any) -> Node | None:
    node: Node | None = loader.get_single_node()
    return node


def _all_nodes(loader: Any) -> list[Node]:
    nodes = []
    while loader.check_node():
        nodes.append(loader.get_node())
    return nodes


class _Bounded(yaml.composer.Composer):
    """Composes nodes with a bound to its recursion."""

    _depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        if self._depth >= MOST_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[attr-defined]
            raise yaml.composer.ComposerError(None, None, f"nested more than {MOST_DEPTH} deep", mark)
        self._depth += 1
        node: Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Loader(_Bounded, yaml.SafeLoader):
    """All of it in Python."""


if yaml.__with_libyaml__:
    from yaml.cyaml import CParser  # type: ignore[attr-defined]

    class _StreamLoader(_Bounded, CParser, yaml.resolver.Resolver):
        """Events from libyaml, nodes from Python."""

        def __init__(self, text: str) -> None:
            # libyaml tells the place of a character in bytes, and takes some that YAML doesn't allow.
            yaml.reader.Reader(text)
            CParser.__init__(self, text)
            yaml.composer.Composer.__init__(self)
            yaml.resolver.Resolver.__init__(self)
else:
    _StreamLoader = _Loader  # type: ignore[misc, assignment]


def shown(text: str) -> str:
    """The text as an error quotes it: on one line and short."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def joined(key: str, name: str) -> str:
    """The dotted key of `name` under `key`; a name that would break the line is quoted."""
    name = name if name.isprintable() and name.isascii() and 0 < len(name) <= 60 and " " not in name else shown(name)
    return f"{key}.{name}" if key else name


def described(node: Node) -> str:
    """What stands there, for an error."""
    if node.tag.removeprefix(TAG) not in _PLAIN_TAGS:
        return f"the tag {shown(node.tag)}"
    if isinstance(node, SequenceNode):
        return "a list"
    if isinstance(node, MappingNode):
        return "a mapping"
    if node.tag == TAG + "null":
        return "nothing"
    if node.tag in (TAG + "int", TAG + "float"):
        return f"the number {shown(node.value)[1:-1]}"
    if node.tag == TAG + "bool":
        return f"the switch {shown(node.value)[1:-1]}"
    return shown(str(node.value))


def _syntax_reason(error: yaml.MarkedYAMLError, line: int, text: str) -> str:
    reason = "; ".join(part for part in (error.context, error.problem) if part).replace("\n", " ")
    lines = text.splitlines()
    there = lines[line] if line < len(lines) else ""
    hint = ""
    if "\t" in there[: len(there) - len(there.lstrip())]:
        hint = ": indent with spaces, not with tabs"
    elif "[" in there and "]:" in there:
        hint = ': an address with brackets needs quotes, such as "[::1]:53"'
    return f"YAML: {reason}{hint}"
