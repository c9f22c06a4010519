"""kube-dns with scripted servers as its pods, and a pod that asks all the time, on one path.

The scenarios of trouble behind kube-dns are told in its words. The servers stand in for CoreDNS because they can be
told to be silent, slow or wrong.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import median

from proxy.lab.case import Case
from proxy.lab.cluster import Cluster
from proxy.lab.nodes import Pod
from proxy.lab.outcome import Outcome, Question, tally_questions
from proxy.lab.scenario import Expectation, Run
from proxy.lab.sidestep import DNS
from proxy.lab.traffic import DnsServer, Questioner, now_ns

KUBE_DNS = "10.96.0.10"
REPLICAS = 3
PATIENCE = 2.5
"""Seconds until musl asks again; glibc waits 5."""
KNOWN_RATE, NEW_RATE = 80, 20
"""Questions a second for one name that everybody asks, and for names of which each is asked once."""
KNOWN, NEW = "orders.shop.svc.cluster.local", "n{number}.example.com"

KEEPS_KNOWN = Expectation("loses no name that it knew", lambda outcome: not outcome.figures["known lost"])


@dataclass(frozen=True, slots=True)
class Trouble:
    """When it begins, when it is over, when nothing is asked any more: seconds after the start."""

    begins: float
    over: float
    end: float


SHORT = Trouble(0.8, 2.8, 3.2)


@dataclass(frozen=True, slots=True)
class DnsPod:
    """A pod and the server in it; `delete` ends both."""

    pod: Pod
    server: DnsServer

    @property
    def address(self) -> str:
        return self.pod.address

    def delete(self) -> None:
        """Whatever it had not answered yet dies with it; its address is free."""
        self.server.kill()
        self.pod.delete()


class DnsCase(Case):
    """Use as a context manager; in it: `pods`, `ask`, `at`, and in the end `outcome`.

    kube-dns has REPLICAS endpoints, in use on this path, before anybody asks.
    """

    def __init__(self, cluster: Cluster, run: Run, *, ttl: int | None = None, known: Sequence[str] = ()) -> None:
        """Names that are not `known`, as `Traffic.dns_server` has it, don't exist; without any all do.

        Without a `ttl` answers are good for CoreDNS's 5 s, in the short form for one: it ends within the trouble.
        """
        super().__init__(cluster, run)
        self.pods: list[DnsPod] = []
        self._ttl = ttl or (1 if run.short else 5)
        self._known = known
        self._made = 0

    def _start(self, stack: ExitStack) -> None:
        self.service = self.cluster.service(
            "kube-system/kube-dns", KUBE_DNS, 53, port_name="dns", protocols=("UDP", "TCP")
        )
        if self.path == "sidestep":
            self.sidestep = stack.enter_context(self.cluster.sidestep(dns=self.service))
        self.client = self.cluster.pod("client")
        self.replace_pods(REPLICAS)

    @property
    def target(self) -> str:
        """Where clients ask on this path: `ip:53`."""
        return self.service.address if self.path == "kube-proxy" else DNS

    def replace_pods(self, replicas: int) -> None:
        """So many new pods are kube-dns's endpoints from now on, and those it had are gone.

        It comes back when the path has applied it. With pods before and after, the new ones answer before the old
        ones leave.
        """
        old, self.pods = self.pods, [self._pod() for _ in range(replicas)]
        addresses = [one.address for one in self.pods]
        self.cluster.set_endpoints(self.service, addresses)
        self.cluster.wait_synced()
        if self.path == "sidestep":
            self.sidestep.wait_applied(self.service, addresses)
        for one in old:
            one.delete()

    def replace_pod(self, leaving: DnsPod, ends_after: float) -> float:
        """One new pod is an endpoint instead of this one, which ends so many seconds after the change is stored.

        kube-proxy may have applied it by then or not; Sidestep is waited for. Returns the seconds after which the
        old pod ended.
        """
        self.pods = [self._pod() if one is leaving else one for one in self.pods]
        addresses = [one.address for one in self.pods]
        self.cluster.set_endpoints(self.service, addresses)
        stored_ns = now_ns()
        if self.path == "sidestep":
            self.sidestep.wait_applied(self.service, addresses)
        time.sleep(max(0.0, ends_after - (now_ns() - stored_ns) / 1e9))
        ended_ns = now_ns()
        leaving.delete()
        return (ended_ns - stored_ns) / 1e9

    def ask(self, seconds: float) -> None:
        """The pod asks from now on, each question from a fresh port; times of `at` count from here."""
        self._known_asker = self._questioner(KNOWN, KNOWN_RATE, seconds)
        self._new_asker = self._questioner(NEW, NEW_RATE, seconds)
        self._began_ns = now_ns()
        self._known_asker.start()
        self._new_asker.start()

    def ask_no_more(self) -> float:
        """The pod has asked enough. Returns how many seconds it asked, as `at` counts them."""
        seconds = self.seconds()
        for asker in (self._known_asker, self._new_asker):
            asker.finish()
        return seconds

    def outcome(self, trouble: Trouble, *notes: str, figures: dict[str, float] | None = None) -> Outcome:
        """What the pod saw, once it has asked all. How long it waited is told of the time of trouble."""
        found = dict(figures or {})
        everything: list[Question] = []
        span = range(*(self._began_ns + round(seconds * 1e9) for seconds in (trouble.begins, trouble.over)))
        for what, asker in (("known", self._known_asker), ("new", self._new_asker)):
            asker.wait(600)
            asked = asker.questions()
            everything += asked
            found[f"{what} lost"] = sum(1 for one in asked if not _answered(one))
            waits = [one.milliseconds for one in asked if _answered(one) and one.at_ns in span]
            found |= {f"{what} p50 ms": median(waits), f"{what} slowest ms": max(waits)} if waits else {}
        counted = tally_questions(everything, within=PATIENCE, marks=self._marks, notes=notes)
        return replace(counted, figures=found)  # waits of both kinds of names together say nothing about either

    def _pod(self) -> DnsPod:
        self._made += 1
        pod = self.cluster.pod(f"dns-{self._made}")
        server = self.traffic.dns_server(pod, f"{pod.address}:53", known=self._known, ttl=self._ttl)
        return DnsPod(pod, server)

    def _questioner(self, name: str, rate: float, seconds: float) -> Questioner:
        return self.traffic.questioner(
            self.client,
            self.target,
            name=name,
            rate=rate,
            seconds=seconds,
            source_ports="fresh",
            timeout=PATIENCE,
        )


def _answered(question: Question) -> bool:
    return bool(question.answered_ns) and question.rcode == 0 and question.milliseconds <= PATIENCE * 1000
