"""NodeLocal DNSCache on the addresses of our listeners: who has them, and that it has left them."""

from collections.abc import Iterable

from proxy.control.errors import CannotRun
from proxy.control.owner import port_owner
from proxy.control.sockets import dns_transports, host_and_port
from proxy.node import nodelocal
from proxy.node.nft import NodeError

PROGRAM = "node-cache"


def in_the_way(addresses: Iterable[str]) -> str | None:
    """NodeLocal DNSCache and the listeners that it has, as a phrase; None where it has none of them.

    It is known by its program's name or, where other processes can't be seen (in a pod), by its interface. Raises
    CannotRun.
    """
    try:
        its = nodelocal.held()
    except NodeError as error:
        raise CannotRun(str(error)) from error
    taken = []
    process = ""
    for address in addresses:
        host, port = host_and_port(address)
        for transport in dns_transports(address):
            owner = port_owner(host, port, transport)
            if owner is not None and (owner.name == PROGRAM or host in its):
                taken.append(f"{address}/{transport}")
                process = process or (f", {owner}" if owner.pid is not None else "")
    return f"NodeLocal DNSCache (it has {', '.join(taken)}{process})" if taken else None
