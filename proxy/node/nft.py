"""The program nft: the one place where it is called. It changes one table and no other."""

import json
import os
import shutil
import subprocess

from proxy.node.table import TABLE, Entry

_PATIENCE = 20.0
"""Other programs hold the kernel's lock for seconds when they load 100,000 rules."""
_WITHOUT_NFT = (
    "node.manage needs nftables: a fallback by iptables cannot hold a lease, because only an nft set forgets by "
    "itself when the answers stop. Set node.manage: false to listen without failover"
)


class NodeError(Exception):
    """The node's kernel can't be set up as wanted; the text names what is in the way and says what to do."""


def listing(what: str = f"table {TABLE}") -> list[Entry] | None:
    """A table or a set with all that is in it; None if there is none. Raises NodeError."""
    done = _nft("-j", "list", *what.split())
    if done.returncode != 0:
        if b"No such file or directory" in done.stderr:
            return None
        raise _explained(done)
    try:
        entries = json.loads(done.stdout)["nftables"]
        return [(kind, value) for entry in entries for kind, value in entry.items() if kind != "metainfo"]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise senseless(error) from error


def senseless(error: Exception) -> NodeError:
    """What nft printed is not what was expected of it."""
    said = f"{type(error).__name__}: {error}"
    return NodeError(f"nft's answer makes no sense ({said[:200]}); `nft -j list table {TABLE}` shows it")


def carry_out(transaction: str) -> None:
    """All of it at once, or nothing and NodeError."""
    done = _nft("-f", "-", given=transaction)
    if done.returncode != 0:
        raise _explained(done)


def _nft(*words: str, given: str = "") -> "subprocess.CompletedProcess[bytes]":
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    program = shutil.which("nft", path=path)
    if program is None:
        raise NodeError(f"the program nft is missing; install the package nftables. {_WITHOUT_NFT}")
    try:
        return subprocess.run(
            [program, *words],
            input=given.encode(),
            capture_output=True,
            timeout=_PATIENCE,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NodeError(f"nft did not end within {_PATIENCE:g} s; is another program loading rules?") from error
    except OSError as error:
        raise NodeError(f"{program} cannot be started: {error.strerror}") from error


def _explained(done: "subprocess.CompletedProcess[bytes]") -> NodeError:
    said = " ".join(done.stderr.decode(errors="replace").split())
    if "Operation not permitted" in said or "must be root" in said:
        return NodeError("node.manage needs root or the capability CAP_NET_ADMIN; grant it or set node.manage: false")
    if "not supported" in said or "cache initialization failed" in said:
        return NodeError(
            f"this kernel has no nf_tables, or not all of it that is needed ({said[:300]}). {_WITHOUT_NFT}"
        )
    return NodeError(f"nft refused: {said[:600] or f'exit status {done.returncode}'}")
