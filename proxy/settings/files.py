"""The text of a configuration file."""

from pathlib import Path

from proxy.documents import files
from proxy.settings.reader import MOST_BYTES


def read_text(path: str | Path) -> str:
    """The file without a byte order mark. Raises SettingsUnreadable, or SettingsError when it isn't UTF-8."""
    return files.read_text(path, "check the path, or run without --config for the defaults", MOST_BYTES)
