"""The one exception that is meant for people."""


class CannotRun(Exception):
    """Something outside is in the way; the text names it and says what to do. Ends a command with status 2."""
