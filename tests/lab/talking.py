"""Datagrams between namespaces, from the test's own process."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from proxy.lab.cluster import Pod

PORT = 8125
WAIT = 10


class Talk:
    """Sockets in namespaces; all are closed at the end."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def receiver(self, pod: Pod, port: int = PORT) -> socket.socket:
        """A socket that waits for datagrams on the pod's address."""
        made = self._stack.enter_context(pod.socket(socket.SOCK_DGRAM, (pod.address, port)))
        made.settimeout(WAIT)
        return made

    def sender(self, pod: Pod, address: str, port: int = 40000) -> socket.socket:
        """A socket of one fixed source port, connected to `address:port`."""
        made = self.receiver(pod, port)
        host, _, to = address.rpartition(":")
        made.connect((host, int(to)))
        return made


@contextmanager
def talk() -> Iterator[Talk]:
    with ExitStack() as stack:
        yield Talk(stack)
