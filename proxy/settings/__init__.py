"""The configuration file: from text to `Settings`, with every error at its line and column.

It never opens a socket to listen, and never starts anything.
"""

from pathlib import Path

from proxy.documents.files import SettingsUnreadable
from proxy.settings.checks import check
from proxy.settings.files import read_text
from proxy.settings.kinds import Section
from proxy.settings.loops import own_listener
from proxy.settings.model import Settings, default_settings, json_schema, places, wanted_by
from proxy.settings.reader import Problem, Reading, SettingsError
from proxy.settings.resolv import read_resolv_conf

__all__ = [
    "Problem",
    "Settings",
    "SettingsError",
    "SettingsUnreadable",
    "default_settings",
    "json_schema",
    "load",
    "own_listener",
    "parse",
    "read_resolv_conf",
    "wanted_by",
]


def load(path: str | Path) -> Settings:
    """The settings in this file. Raises SettingsError with all that is wrong, SettingsUnreadable (an OSError)."""
    return parse(read_text(path), str(path))


def parse(text: str, filename: str = "configuration") -> Settings:
    """The settings in this text; an empty one turns nothing on. Raises SettingsError with all that is wrong."""
    reading = Reading(filename, places())
    node = reading.compose(text)
    if node is None or node.tag == "tag:yaml.org,2002:null":
        return Settings()
    settings = Section(Settings).read(node, "", reading)
    check(reading)
    if reading.problems:
        raise SettingsError(reading.problems)
    assert isinstance(settings, Settings)
    return settings
