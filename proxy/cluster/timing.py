"""How long a watch waits for what, in seconds: the defaults are for a real API server, tests shorten them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    connect: float = 5.0
    answer: float = 60.0
    """The longest that the begin of an answer, a page of a list or a GET may take: a server may queue for 60 s."""
    silence: float = 70.0
    """A watch with no event or bookmark for so long is dead: bookmarks come about every 60 s."""
    first_word: float = 10.0
    """The same while initial events flow. A server that doesn't know `sendInitialEvents` falls silent there."""
    watch: tuple[int, int] = (300, 600)
    """The server is asked to end each watch after a random time between these."""
    shortest_watch: float = 1.0
    """A watch that ends sooner, and brought nothing, counts as an error."""
    healthy: float = 60.0
    """A watch that lived so long resets the back-off."""
    first_backoff: float = 0.8
    most_backoff: float = 30.0
    most_retry_after: float = 120.0
    """The longest `Retry-After` that is heeded."""
    save_every: float = 1.0
    """Changes reach the disk at most so often."""
    refresh_saved: float = 300.0
    """What is on disk is written anew so often even if nothing changed, so that its age means something."""
