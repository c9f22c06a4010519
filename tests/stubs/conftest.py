"""One namespace for all stub tests, and each stub built once."""

from collections.abc import Callable, Iterator

import pytest

from proxy.lab.tools import Unavailable
from tests import peers
from tests.stubs.lab import STUBS, Lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The namespace, or a skip with the reason."""
    try:
        with Lab(tmp_path_factory.mktemp("stubs")) as made:
            yield made
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[str, ...]]:
    """The command of a stub by its name, built on first use; a skip where its compiler or program isn't installed."""
    out = tmp_path_factory.mktemp("clients")
    commands: dict[str, tuple[str, ...]] = {}

    def built(name: str) -> tuple[str, ...]:
        missing = [program for program in STUBS[name].programs if peers.find(program) is None]
        if missing:
            pytest.skip(f"not installed: {', '.join(missing)}")
        if name not in commands:
            commands[name] = STUBS[name].built(out)
        return commands[name]

    return built
