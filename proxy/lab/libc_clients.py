"""A program that looks one name up, built with the machine's glibc and with musl. Built once and kept."""

import hashlib
from pathlib import Path
from typing import Literal, get_args

from proxy.lab import tools
from proxy.lab.namespaces import command

Libc = Literal["glibc", "musl"]
LIBCS: tuple[Libc, ...] = get_args(Libc)
SOURCE = Path(__file__).with_name("getaddrinfo.c")

_COMPILERS: dict[Libc, tuple[str, ...]] = {"glibc": ("gcc", "-O1"), "musl": ("musl-gcc", "-O1", "-static")}
PROGRAMS = tuple(words[0] for words in _COMPILERS.values())
"""What builds them."""


def built(libc: Libc, directory: Path = tools.BUILT) -> Path:
    """Its path, after building it if it is not there. Raises Unavailable, saying what to install."""
    compiler, *options = _COMPILERS[libc]
    source = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:8]
    program = directory / f"lookup-{libc}-{source}"
    if not program.exists():
        tools.require(compiler)
        directory.mkdir(parents=True, exist_ok=True)
        unready = program.with_suffix(".new")
        try:
            command(compiler, *options, "-o", str(unready), str(SOURCE))
        except RuntimeError as error:
            headers = tools.PACKAGES[compiler]
            raise tools.Unavailable(
                f"can't build for {libc} (on Debian: apt-get install {headers}): {error}"
            ) from None
        unready.replace(program)
    return program
