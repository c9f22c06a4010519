"""What the kernel dropped because a listener's queue was full."""

from proxy.control.sockets import ListenSockets
from proxy.worker.mmsg import kernel_drops


def kernel_drops_of(sockets: ListenSockets) -> dict[str, int]:
    """Datagrams that each UDP address lost so far."""
    drops: dict[str, int] = {}
    for address, sock in sockets.udp_sockets():
        drops[address] = drops.get(address, 0) + kernel_drops(sock)
    return drops
