"""A StatsD Service with its pods and a sender beside it, on one path; keeps which pod was an endpoint when.

The scenarios that send StatsD are told in its words.
"""

import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from proxy.lab.case import Case
from proxy.lab.cluster import Cluster
from proxy.lab.nodes import LISTENER, Pod
from proxy.lab.outcome import Membership, Outcome, Sent, tally
from proxy.lab.scenario import Run
from proxy.lab.services import Service
from proxy.lab.traffic import StatsdSender, StatsdSink, now_ns

CLUSTER_IP = "10.96.0.20"
PORT = 8125

_QUIET = 0.5
_SETTLED_WITHIN = 10.0


@dataclass(frozen=True, slots=True)
class SinkPod:
    """A pod and the StatsD server in it; `delete` ends both."""

    pod: Pod
    sink: StatsdSink

    @property
    def address(self) -> str:
        return self.pod.address

    def delete(self) -> None:
        """The server reads what had come, then the pod is gone and its address free."""
        self.sink.finish()
        self.pod.delete()


class StatsdCase(Case):
    """Use as a context manager; in it: `pod`, `endpoints`, `send`, `at`, and in the end `outcome`."""

    def __init__(self, cluster: Cluster, run: Run, *, node: bool = False) -> None:
        """With `node` Sidestep brings its address and its table to the node: its clients are not tracked."""
        super().__init__(cluster, run)
        self._node = node
        self._membership = Membership()
        self._members: set[str] = set()
        self._pods: list[SinkPod] = []
        self._senders: list[StatsdSender] = []

    def _start(self, stack: ExitStack) -> None:
        self.service = self._made()
        if self.path == "sidestep":
            self.sidestep = self.cluster.sidestep(statsd=self.service, sections={"node": {}} if self._node else None)
            if self._node:
                self.cluster.node.ip(f"addr del {LISTENER}/32 dev lo")
                stack.callback(self.sidestep.restore)
            stack.enter_context(self.sidestep)

    @property
    def target(self) -> str:
        """Where clients send to on this path."""
        return self.service.address if self.path == "kube-proxy" else f"{LISTENER}:{PORT}"

    def pod(self, name: str, address: str | None = None, *, node: int = 0) -> SinkPod:
        """A pod with a StatsD server in it, which reads from now on. It is no endpoint yet."""
        pod = self.cluster.pod(name, address, node=node)
        made = SinkPod(pod, self.traffic.statsd_sink(pod, f"{pod.address}:{PORT}"))
        self._pods.append(made)
        return made

    def endpoints(self, *pods: SinkPod, seen: bool = True) -> None:
        """These pods are the Service's endpoints from now on; comes back when the path has applied it.

        Without `seen` it doesn't wait, as when the one who should apply it is away. A pod that is left out counts as
        an endpoint until this returns.
        """
        members = {one.sink.name for one in pods}
        before_ns = now_ns()
        for name in members:
            self._membership.add(name, before_ns)
        self.cluster.set_endpoints(self.service, [one.address for one in pods])
        if seen:
            self.wait_applied(*pods)
        after_ns = now_ns()
        for name in self._members - members:
            self._membership.remove(name, after_ns)
        self._members = members

    def replace(self, leaving: Sequence[SinkPod], coming: Sequence[SinkPod], ends_after: float) -> float:
        """One change of the Service's endpoints; comes back when those who leave are gone.

        They end so many seconds after the change is stored, as a server does that ends on SIGTERM: kube-proxy may
        have applied it by then or not; Sidestep is waited for. They count as endpoints until they end. Returns the
        seconds after which they ended.
        """
        gone = {one.sink.name for one in leaving}
        new = {one.sink.name for one in coming}
        stay = [one for one in self._pods if one.sink.name in self._members - gone]
        before_ns = now_ns()
        for name in new:
            self._membership.add(name, before_ns)
        self.cluster.set_endpoints(self.service, [one.address for one in (*stay, *coming)])
        stored_ns = now_ns()
        if self.path == "sidestep":
            self.wait_applied(*stay, *coming)
        time.sleep(max(0.0, ends_after - (now_ns() - stored_ns) / 1e9))
        ended_ns = now_ns()
        for one in leaving:
            one.delete()
            self._membership.remove(one.sink.name, now_ns())
        self._members = self._members - gone | new
        return (ended_ns - stored_ns) / 1e9

    def no_service(self) -> None:
        """The Service is deleted; comes back when the path has applied it."""
        self.cluster.delete_service(self.service)
        self.wait_applied()
        after_ns = now_ns()
        for name in self._members:
            self._membership.remove(name, after_ns)
        self._members = set()

    def service_again(self) -> None:
        """The Service is created anew, with its ClusterIP and no endpoint yet."""
        self.service = self._made()

    def _made(self) -> Service:
        return self.cluster.service("monitoring/statsd", CLUSTER_IP, PORT, port_name="statsd")

    def wait_applied(self, *pods: SinkPod) -> None:
        """Until Sidestep's status shows these endpoints, or kube-proxy's rules what the API server says."""
        if self.path == "sidestep":
            self.sidestep.wait_applied(self.service, [one.address for one in pods])
        else:
            for kube_proxy in self.cluster.kube_proxies:
                kube_proxy.wait_synced()

    def send(
        self,
        rate: float,
        seconds: float,
        *,
        source_ports: str = "40000",
        connected: bool = False,
        client: str = "client",
        size_bytes: int = 0,
        lines: int = 1,
        to: str = "",
    ) -> StatsdSender:
        """Send from a pod of this name, made where needed; times of `at` count from the first sender's start.

        To `target`, unless told another `address:port`.
        """
        place = self.cluster.run.namespaces.get(client) or self.cluster.pod(client)
        sender = self.traffic.statsd_sender(
            place,
            to or self.target,
            rate=rate,
            seconds=seconds,
            source_ports=source_ports,
            connected=connected,
            size_bytes=size_bytes,
            lines=lines,
        )
        self._senders.append(sender)
        self._began_ns = self._began_ns or now_ns()
        sender.start()
        return sender

    def wait(self) -> None:
        """Until all senders have sent all."""
        for sender in self._senders:
            sender.wait(600)

    def outcome(self, *notes: str, figures: dict[str, float] | None = None) -> Outcome:
        """When all that senders were to send is sent and nothing arrives any more."""
        self.wait()
        self.arrived()
        told = list(notes)
        for one in self._pods:
            one.sink.finish()
            if drops := one.sink.summary.get("drops"):
                told.append(f"the lab's own receiver {one.sink.name} dropped {drops}: the machine is too busy")
        return tally(
            [sent for sender in self._senders for sent in sender.sent()],
            [arrival for one in self._pods for arrival in one.sink.arrivals()],
            self._membership,
            marks=self._marks,
            notes=told,
            figures=figures,
        )

    def lost(self, sender: StatsdSender) -> int:
        """How much of what it sent came to no pod. All senders have ended."""
        return len(self._lost([sender]))

    def lost_between(self, since: float, until: float) -> int:
        """How much of what was sent between these seconds after the start came to no pod. All senders have ended."""
        span = range(*(self._began_ns + round(seconds * 1e9) for seconds in (since, until)))
        return sum(sent.at_ns in span for sent in self._lost(self._senders))

    def _lost(self, senders: Iterable[StatsdSender]) -> list[Sent]:
        self.arrived()
        came = {arrival.number for one in self._pods for arrival in one.sink.arrivals()}
        return [sent for sender in senders for sent in sender.sent() if sent.number not in came]

    def arrived(self) -> None:
        """Until everything that was sent has come, or nothing more for a while: a relay may still hold some.

        All senders have ended.
        """
        sent = sum(int(sender.summary["sent"]) for sender in self._senders)
        deadline = time.monotonic() + _SETTLED_WITHIN
        seen, since = -1, time.monotonic()
        while time.monotonic() < min(deadline, since + _QUIET):
            arrived = sum(_rows(one.sink.log) for one in self._pods)
            if arrived >= sent:
                return
            if arrived != seen:
                seen, since = arrived, time.monotonic()
            time.sleep(0.05)


def _rows(log: Path) -> int:
    return log.read_bytes().count(b"\n")
