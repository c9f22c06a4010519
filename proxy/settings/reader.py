"""A configuration file while it is read: the values found by their dotted keys, where they stand, what is wrong."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from yaml.nodes import Node

from proxy.documents.reader import (
    MOST_PROBLEMS,
    TAG,
    WHOLE_FILE,
    Problem,
    SettingsError,
    described,
    joined,
)
from proxy.documents.reader import Reading as Document

__all__ = [
    "MOST_BYTES",
    "MOST_PROBLEMS",
    "TAG",
    "Problem",
    "Reading",
    "SettingsError",
    "described",
    "joined",
    "unknown_key",
]

MOST_BYTES = 256 * 1024
"""A thousand zones take some 100 KiB; a larger file isn't a configuration of this."""


class Reading(Document):
    """What was found in one configuration file."""

    def __init__(self, filename: str, places: Mapping[str, str]) -> None:
        super().__init__(filename)
        self.places = places
        """Where each key belongs, for those that stand in the wrong section."""
        self.values: dict[str, Any] = {}
        self.nodes: dict[str, Node] = {}

    def found(self, key: str, node: Node, value: Any) -> None:
        """Note a value that is right by itself, for the checks that look at several."""
        self.values[key] = value
        self.nodes[key] = node

    def compose(self, text: str) -> Node | None:
        """The root of the only document in `text`, None when empty. Raises SettingsError for what isn't YAML."""
        if len(text) > MOST_BYTES:
            self.problem_at(0, 0, WHOLE_FILE, f"it has over {MOST_BYTES // 1024} KiB: no configuration of this proxy")
            raise SettingsError(self.problems)
        return super().compose(text)


def unknown_key(name: str, allowed: Iterable[str], places: Mapping[str, str]) -> str:
    """The reason for an unknown key: what was meant, or where it belongs, or what there is."""
    allowed = list(allowed)
    plain = name.replace("-", "_").lower()[:40]
    close = get_close_matches(plain, allowed, n=1, cutoff=0.65)
    if plain in places and plain not in close:
        return f"unknown key here; it belongs to {places[plain]}"
    if close:
        return f"unknown key; did you mean {close[0]!r}?"
    return f"unknown key; allowed are {', '.join(allowed)}"
