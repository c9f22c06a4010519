"""The worker's door to its upstreams: tries go out over UDP or TCP, replies and failures come back."""

import asyncio

from proxy.core.counters import Counts
from proxy.core.pending import Try
from proxy.worker.poller import Poller
from proxy.worker.upstream_tcp import TCP_UPSTREAM_LIMITS, TcpUpstreamLimits, UpstreamTcp
from proxy.worker.upstream_try import OnAnswer, OnFailure
from proxy.worker.upstream_udp import UDP_LIMITS, UdpLimits, UpstreamUdp


class UpstreamSockets:
    """Every socket to an upstream.

    `on_answer(try_, reply)` gets what the kernel and the ID vouch for, with the sockets' ID, and returns
    whether that ended the try. `on_failure(try_, reason)` says that a try ended: `refused`, `unreachable`,
    `no_socket` or `malformed` (a TCP stream that makes no sense). Both come from the loop, never from within
    `ask` or `forget`, and may themselves ask and forget.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_answer: OnAnswer,
        on_failure: OnFailure,
        counts: Counts,
        udp_limits: UdpLimits = UDP_LIMITS,
        tcp_limits: TcpUpstreamLimits = TCP_UPSTREAM_LIMITS,
    ) -> None:
        self._poller = Poller(loop)
        self._udp = UpstreamUdp(loop, self._poller, on_answer, on_failure, counts, udp_limits)
        self._tcp = UpstreamTcp(loop, self._poller, on_answer, on_failure, counts, tcp_limits)

    def ask(self, try_: Try) -> None:
        """Send the question of this try; its deadline is the caller's, who then calls `forget`."""
        (self._tcp if try_.proto == "tcp" else self._udp).ask(try_)

    def forget(self, try_: Try) -> None:
        """Wait no longer: nothing is called for this try any more. A try that is over or unknown is fine."""
        (self._tcp if try_.proto == "tcp" else self._udp).forget(try_)

    def sent_by_us(self, port: int, message_id: int) -> bool:
        """Whether a question from this source port with this ID is one of our own open tries: a loop."""
        return self._udp.sent_by_us(port, message_id) or self._tcp.sent_by_us(port, message_id)

    def close(self) -> None:
        """Close every socket; open tries end without a call."""
        self._udp.close()
        self._tcp.close()
        self._poller.close()
