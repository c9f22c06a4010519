"""The programs that the lab runs: where they are, which are missing and how to get them; waiting for what they do."""

import contextlib
import os
import pwd
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

_IN_HOME = ".cache/sidestep/bin"
BUILT = Path.home() / _IN_HOME
"""Where `make testbed` puts what it builds."""


def searched(environment: Mapping[str, str]) -> Iterator[Path]:
    """The directories in which programs are looked for, the first one first.

    With sudo, which has root's home, also where the user who called it built them.
    """
    yield BUILT
    with contextlib.suppress(KeyError):
        yield Path(pwd.getpwnam(environment["SUDO_USER"]).pw_dir) / _IN_HOME
    yield from (Path(entry) for entry in environment.get("PATH", "").split(os.pathsep) if entry)
    yield from (Path("/usr/local/go/bin"), Path("/usr/local/sbin"), Path("/usr/sbin"), Path("/sbin"))


SEARCHED = tuple(searched(os.environ))

PACKAGES = {
    "conntrack": "conntrack",
    "gcc": "gcc libc6-dev",
    "ip": "iproute2",
    "iptables": "iptables",
    "musl-gcc": "musl-tools",
    "nft": "nftables",
    "openssl": "openssl",
    "setpriv": "util-linux",
    "sysctl": "procps",
}
"""The Debian package that has each program, and what it needs."""

FROM_GO = frozenset({"coredns", "etcd", "kube-apiserver", "kube-proxy"})
"""What `make testbed` builds."""


class Unavailable(Exception):
    """This machine can't run the lab, or a part of it; the text says what is missing and how to get it."""


def find(program: str) -> str | None:
    """The path of an installed program, also where a plain user's PATH doesn't look."""
    return shutil.which(program, path=os.pathsep.join(map(str, SEARCHED)))


def require(*programs: str) -> None:
    """Raises Unavailable, naming every one that is missing and what brings it."""
    missing = [program for program in programs if find(program) is None]
    if missing:
        raise Unavailable("; ".join([f"not installed: {', '.join(missing)}", *_advice(missing)]))


def require_root() -> None:
    """Raises Unavailable for anybody else."""
    if os.geteuid() != 0:
        raise Unavailable("needs root to make network namespaces: run it with sudo")


def _advice(missing: list[str]) -> list[str]:
    advice = []
    packages = sorted({PACKAGES[program] for program in missing if program in PACKAGES})
    if packages:
        advice.append(f"on Debian: apt-get install {' '.join(packages)}")
    if FROM_GO.intersection(missing):
        advice.append("make testbed builds what Kubernetes and CoreDNS need, once, in some minutes")
    return advice


def until(holds: Callable[[], bool], what: str, limit: float = 30, pause: float = 0.02) -> float:
    """Ask again and again until it holds. Returns how long that took; raises RuntimeError after `limit` seconds."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > limit:
            raise RuntimeError(f"after {limit:g} s still not: {what}")
        time.sleep(pause)
    return time.monotonic() - began
