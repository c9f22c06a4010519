"""A pod, a node and another pod, as network namespaces with veth pairs between them: the way that a datagram goes.

The namespaces have no names and hang on processes that read from this one: they are gone when this process is,
however that ends. Needs root and Linux.
"""

import subprocess
from contextlib import ExitStack

from tests import peers
from tests.stubs.lab import Unavailable

POD, ENDPOINT = "10.244.1.9", "10.244.2.7"
UNTRACKED = "10.244.2.8"
"""The endpoint's second address, for datagrams that conntrack is to leave alone."""
LISTENER, CLUSTER_IP = "169.254.20.10", "10.96.0.20"
"""The node's own address, where a relay listens, and the Service's, which is nobody's."""

_ON_NODE = f"""\
set -e
ip link set lo up
ip addr add {LISTENER}/32 dev lo
sysctl -qw net.ipv4.ip_forward=1
for end in pod endpoint; do
    ip link add $end type veth peer name eth0 netns $1
    ip addr add 169.254.1.1/32 dev $end
    ip link set $end up
    shift
done
ip route add {POD} dev pod
ip route add {ENDPOINT} dev endpoint
ip route add {UNTRACKED} dev endpoint
"""
_IN_POD = """\
set -e
ip link set lo up
for address in "$@"; do ip addr add $address/32 dev eth0; done
ip link set eth0 up
ip route add 169.254.1.1 dev eth0
ip route add default via 169.254.1.1
"""


class Node:
    """The three namespaces; use as a context manager. Raises Unavailable on entry where they can't be had.

    `pod`, `node` and `endpoint` are what goes in front of a command that is to run there.
    """

    def __enter__(self) -> "Node":
        with ExitStack() as stack:
            holders = [self._hold(stack) for _ in range(3)]
            self.pod, self.node, self.endpoint = (
                ("nsenter", f"--target={holder}", "--net", "--") for holder in holders
            )
            self.run(self.node, "sh", "-c", _ON_NODE, "sh", str(holders[0]), str(holders[2]))
            self.run(self.pod, "sh", "-c", _IN_POD, "sh", POD)
            self.run(self.endpoint, "sh", "-c", _IN_POD, "sh", ENDPOINT, UNTRACKED)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _hold(self, stack: ExitStack) -> int:
        """A new namespace. Returns the process that it hangs on."""
        if peers.find("unshare") is None or peers.find("ip") is None:
            raise Unavailable("needs unshare and ip")
        holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo held; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        stack.callback(_ended, holder)
        assert holder.stdout
        assert holder.stderr
        if holder.stdout.readline() != "held\n":
            raise Unavailable(f"needs root to make a network namespace: {holder.stderr.read().strip()}")
        return holder.pid

    def run(self, where: tuple[str, ...], *command: str, given: str = "") -> str:
        """Run a command in one of the namespaces. Returns what it prints; raises RuntimeError with what it said."""
        ran = subprocess.run([*where, *command], input=given, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise RuntimeError(f"{' '.join(command)}: {ran.stderr.strip()}")
        return ran.stdout


def _ended(process: subprocess.Popen[str]) -> None:
    """End a process whose stdin is its reason to live."""
    with process:
        assert process.stdin
        process.stdin.close()
