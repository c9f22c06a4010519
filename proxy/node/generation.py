"""The number that nf_tables gives to a network namespace's rules: another one after every transaction of anybody.

What packets add to sets, such as leases, leaves it as it is, and to list such sets may take a second.
"""

import os
import socket
import struct

from proxy.node import conntrack_wire as wire
from proxy.node.nft import NodeError

_GET_GENERATION = 10 << 8 | 16  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN
_GENERATION = struct.Struct("!4xI")  # NFTA_GEN_ID is the first attribute of the answer
_PATIENCE = 5.0


def generation() -> int:
    """Of this thread's network namespace. Raises NodeError."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, wire.NETLINK_NETFILTER) as netlink:
            netlink.settimeout(_PATIENCE)
            netlink.send(wire.message(_GET_GENERATION, wire.NLM_F_REQUEST, 1, socket.AF_UNSPEC))
            answer = netlink.recv(4096)
        kind, _, begin, end = next(wire.messages(answer))
        if kind == wire.NLMSG_ERROR:
            raise OSError(number := wire.error_number(answer, begin, end), os.strerror(number))
        return int(_GENERATION.unpack_from(answer, begin + wire.AFTER_HEADER)[0])
    except (OSError, ValueError, struct.error) as error:
        raise NodeError(f"cannot ask the kernel whether nft rules changed: {error}") from error
