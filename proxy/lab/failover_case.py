"""A node's DNS asked by pods and by the node itself while something dies on it; who had to wait, and for how long.

The scenarios of failover are told in its words. On Sidestep's path it is Sidestep with `node:` beside kube-proxy; on
the other one NodeLocal DNSCache: CoreDNS with its Corefile, its addresses and its rules.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

from proxy.lab import namespaces
from proxy.lab.case import Case
from proxy.lab.cluster import Cluster
from proxy.lab.coredns import KNOWN, CoreDns, NodeCache
from proxy.lab.nodes import LISTENER
from proxy.lab.outcome import Outcome, Question, tally_questions, worst_outage_ms
from proxy.lab.scenario import Expectation, Run
from proxy.lab.sidestep import Sidestep
from proxy.lab.traffic import Questioner, now_ns

ADDRESS = f"{LISTENER}:53"
NEW_NAMES = "n{number}.default.svc.cluster.local"
"""Each is another one, and none exists."""
KUBE_DNS, KUBE_DNS6 = "10.96.0.10", "fd00:10:96::a"
UPSTREAM = "10.96.0.11"
LISTENER6 = "fd00:169:254:20::10"
"""No link-local address: a pod could not name it without an interface."""
TABLE, LINK_ALIAS = "inet sidestep", "sidestep"
"""What Sidestep's are called on a node."""
FOLLOWED_MS = 600
"""A question asked so long after a fault is answered by somebody else: the lease, and what a busy machine takes."""
PROMPT_MS = 1000
"""Later than this somebody had to wait for the answer. A cache answers within one."""
PATIENCE, SHORT_PATIENCE = 5.0, 3.0
"""Seconds after which a question is lost: glibc's, and what a test has time for."""

FOLLOWS = Expectation(
    f"answers all that is asked {FOLLOWED_MS} ms after a fault or later",
    lambda outcome: not outcome.figures["unfollowed"],
)
AT_ONCE = Expectation("makes nobody wait", lambda outcome: not outcome.figures["made to wait"])


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks where and how."""

    place: Literal["pod", "node"]
    """A host-network process is on the node."""
    to: Literal["link-local", "Service"]
    how: Literal["one port", "fresh ports", "TCP"]
    version: Literal[4, 6] = 4

    @property
    def name(self) -> str:
        return f"{self.place}, {self.to} IPv{self.version}, {self.how}"

    @property
    def address(self) -> str:
        """`ip:port`."""
        if self.version == 4:
            return f"{LISTENER if self.to == 'link-local' else KUBE_DNS}:53"
        return f"[{LISTENER6 if self.to == 'link-local' else KUBE_DNS6}]:53"


ALL = tuple(
    Client(place, to, how, version)
    for version in (4, 6)
    for to in ("link-local", "Service")
    for place in ("pod", "node")
    for how in ("one port", "fresh ports", "TCP")
)
FEW = (
    Client("pod", "link-local", "one port"),
    Client("pod", "link-local", "TCP"),
    Client("pod", "Service", "one port"),
    Client("node", "link-local", "fresh ports"),
    Client("node", "Service", "one port"),
    Client("pod", "link-local", "one port", 6),
    Client("pod", "Service", "TCP", 6),
)
"""For tests: each word and each rule of the table once."""


class FailoverCase(Case):
    """Use as a context manager; in it: `ask`, `at`, `fault`, what is done to the proxy, in the end `outcome`."""

    def __init__(
        self,
        cluster: Cluster,
        run: Run,
        *,
        replicas: int = 1,
        before: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        disk_bytes: int | None = None,
    ) -> None:
        """So many pods of CoreDNS; `before` and `environment` are for `Cluster.sidestep`.

        With `disk_bytes` Sidestep's files are on a disk of their own, of this size.
        """
        super().__init__(cluster, run)
        self.coredns: list[CoreDns] = []
        self._replicas = replicas
        self._disk_bytes = disk_bytes
        self._how: dict[str, Any] = {"before": before, "environment": environment}
        self.node = cluster.node
        self._clients: list[tuple[Client, Questioner]] = []
        self._faults_ns: list[int] = []
        self._patience = SHORT_PATIENCE if run.short else PATIENCE
        self._recreated = 0

    def _start(self, stack: ExitStack) -> None:
        self._pods = stack.enter_context(ExitStack())
        self.service = self.cluster.service(
            "kube-system/kube-dns", KUBE_DNS, 53, port_name="dns", protocols=("UDP", "TCP"), cluster_ip6=KUBE_DNS6
        )
        self._services = [self.service]
        if self.path == "kube-proxy":
            upstream = self.cluster.service(
                "kube-system/kube-dns-upstream", UPSTREAM, 53, port_name="dns", protocols=("UDP", "TCP")
            )
            self._services.append(upstream)
        for _ in range(self._replicas):
            self.coredns.append(self._start_coredns())
        self._endpoints()
        self.cluster.wait_synced()
        if self.path == "sidestep":
            self.node.ip(f"addr del {LISTENER}/32 dev lo")  # it is Sidestep's to bring
            self.sidestep = self.cluster.sidestep(sections=self._sections(), **self._how)
            stack.callback(self.sidestep.restore)
            if self._disk_bytes is not None:
                stack.callback(namespaces.unmount, self.sidestep.directory)
                config = self.sidestep.config.read_text()
                namespaces.mount(self.sidestep.directory, self._disk_bytes)
                self.sidestep.config.write_text(config)
            stack.enter_context(self.sidestep)
        else:
            self.node_cache = stack.enter_context(self.cluster.node_cache(self.service, upstream))

    @property
    def proxy(self) -> Sidestep | NodeCache:
        """What this path is about."""
        return self.sidestep if self.path == "sidestep" else self.node_cache

    def ask(
        self,
        seconds: float,
        *,
        clients: Sequence[Client] | None = None,
        rate: float = 20,
        busy: float = 0,
    ) -> None:
        """Everybody asks from now on, `rate` questions a second each; times of `at` count from here.

        `busy`: the first client asks so often instead.
        """
        wanted = clients or (FEW if self._run.short else ALL)
        pod = self.cluster.pods.get("client") or self.cluster.pod("client")
        first = len(self._clients)
        asked = [client for client in wanted if self.path == "sidestep" or client.version == 4]
        for number, client in enumerate(asked, first):
            questioner = self.traffic.questioner(
                pod if client.place == "pod" else self.node,
                client.address,
                name=KNOWN,
                rate=busy if busy and number == first else rate,
                seconds=seconds,
                source_ports="fresh" if client.how == "fresh ports" else str(45000 + number),
                tcp=client.how == "TCP",
                timeout=self._patience,
            )
            self._clients.append((client, questioner))
        self._began_ns = now_ns()
        for _, questioner in self._clients[first:]:
            questioner.start()

    def fault(self, seconds: float, what: str) -> None:
        """As `at`; what is asked FOLLOWED_MS after it or later must be answered."""
        self.at(seconds, what)
        self._faults_ns.append(now_ns())

    def died(self, what: str) -> None:
        """As `mark`; FOLLOWED_MS count from now."""
        self.mark(what)
        self._faults_ns.append(now_ns())

    def restart(self) -> None:
        """Start the dead proxy again; comes back when it serves."""
        self.proxy.start()
        if self.path == "sidestep":
            self.sidestep.wait_ready()
        else:
            self.node_cache.wait_answering()

    def recreate_coredns(self, number: int) -> None:
        """A pod of CoreDNS is replaced by one at another address, which answers before the old one is gone."""
        old, self.coredns[number] = self.coredns[number], self._start_coredns()
        self._endpoints()
        self.cluster.wait_synced()
        old.kill()
        for pod in self.cluster.pods.values():
            if pod.address == old.address:
                pod.delete()

    def fill_cache(self, names: int) -> None:
        """Ask once for the name that everybody asks for, and for so many others, which don't exist; not counted."""
        for name, count in ((KNOWN, 1), (NEW_NAMES, names)):
            asking = self.traffic.questioner(
                self.node, ADDRESS, name=name, rate=400, seconds=count / 400, source_ports="fresh"
            )
            asking.start()
            asking.wait(60)

    def lost_aside(self, to: str, name: str) -> float:
        """The share in percent that a pod loses of 20 questions for `name` to `to`, each on a flow of its own."""
        asking = self.traffic.questioner(
            self.cluster.pods["client"], to, name=name, rate=20, seconds=1, source_ports="fresh", timeout=3
        )
        asking.start()
        asking.wait(60)
        asked = asking.questions()
        return 100 * sum(1 for one in asked if one.rcode not in (0, 3)) / len(asked)

    def fill_disk(self) -> None:
        """Not a byte more can be written beside Sidestep's files."""
        with (self.sidestep.directory / "full").open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass

    def cached(self) -> int:
        """How many answers Sidestep has in its cache."""
        return int(self.sidestep.status()["dns"]["cache"]["entries"])

    def wait(self) -> None:
        """Until everybody has asked all and waited for the last answer."""
        for _, questioner in self._clients:
            questioner.wait(600)

    def unanswered(self, which: Callable[[Client], bool] = lambda client: True) -> int:
        """How many questions of such clients were lost. Only after `wait`."""
        return sum(
            not _answered(one, self._patience * 1000)
            for client, questioner in self._clients
            if which(client)
            for one in questioner.questions()
        )

    def lost(self, which: Callable[[Client], bool], after: float, until: float = float("inf")) -> float:
        """The share in percent that such clients lost of what they asked between these seconds after the start.

        Only after `wait`.
        """
        span = range(*(round(self._began_ns + seconds * 1e9) for seconds in (after, min(until, 3600.0))))
        asked = [
            one
            for client, questioner in self._clients
            if which(client)
            for one in questioner.questions()
            if one.at_ns in span
        ]
        return 100 * sum(1 for one in asked if not _answered(one, PROMPT_MS)) / len(asked) if asked else 0.0

    def left(self) -> list[str]:
        """What there is of Sidestep on the node, each named as `sidestep plan` does."""
        found = []
        for line in self.node.run("ip", "-o", "addr").splitlines():
            ip = line.split()[3].partition("/")[0]
            if ip in (LISTENER, LISTENER6, KUBE_DNS, KUBE_DNS6):
                found.append(f"address {ip}")
        if f"{TABLE}\n" in self.node.run("nft", "list", "tables"):
            found.append(f"table {TABLE}")
        for link in json.loads(self.node.run("ip", "-j", "link")):
            if link.get("ifalias") == LINK_ALIAS:
                found.append(f"link {link['ifname']}")
        return found

    def rules(self) -> int:
        """How many there are in Sidestep's table. Raises RuntimeError where there is none."""
        listed = json.loads(self.node.run("nft", "-j", "list", "table", *TABLE.split()))
        return sum("rule" in entry for entry in listed["nftables"])

    def outcome(self, *notes: str, figures: Mapping[str, float] | None = None) -> Outcome:
        """What everybody saw, once they have asked all."""
        self.wait()
        told = list(notes)
        waited: list[str] = []
        everything: list[Question] = []
        outages = [0.0]
        found = {"made to wait": 0.0, "unfollowed": 0.0, "failover ms": 0.0}
        for client, questioner in self._clients:
            asked = questioner.questions()
            everything += asked
            outages.append(
                worst_outage_ms([one.at_ns for one in asked], [one.answered_ns for one in asked if one.answered_ns])
            )
            slow = [one for one in asked if not _answered(one, PROMPT_MS)]
            if not slow:
                continue
            after = [(one.at_ns - self._since(one)) / 1e6 for one in slow]
            unfollowed = sum(1 for ms in after if ms > FOLLOWED_MS)
            found["made to wait"] += len(slow)
            found["unfollowed"] += unfollowed
            found["failover ms"] = max(found["failover ms"], *after)
            lost = sum(1 for one in slow if not _answered(one, self._patience * 1000))
            waited.append(
                f"{client.name}: {len(slow)} waited, {lost} of them in vain; last {max(after):.0f} ms after a fault"
            )
        if len(waited) > 8:
            waited = [*waited[:7], f"and {len(waited) - 7} more clients"]
        counted = tally_questions(
            everything,
            within=self._patience,
            good=_good,
            marks=self._marks,
            notes=[*told, *waited],
            figures={**found, **(figures or {})},
        )
        return replace(counted, worst_outage_ms=max(outages))

    def _since(self, question: Question) -> int:
        return max([at for at in self._faults_ns if at <= question.at_ns], default=self._began_ns)

    def _start_coredns(self) -> CoreDns:
        self._recreated += 1
        return self._pods.enter_context(self.cluster.coredns(f"coredns-{self._recreated}"))

    def _endpoints(self) -> None:
        for service in self._services:
            self.cluster.set_endpoints(service, [one.address for one in self.coredns])

    def _sections(self) -> dict[str, Any]:
        upstreams = {"service": self.service.name, "port": "dns"}
        return {
            "dns": {
                "listen": list(dict.fromkeys(client.address for client in ALL)),
                "zones": [
                    {
                        "suffix": "cluster.local",
                        "upstreams": upstreams,
                        "fallback": [f"{KUBE_DNS}:53", f"[{KUBE_DNS6}]:53"],
                    },
                    {"suffix": ".", "upstreams": upstreams},
                ],
            },
            "node": {},
        }


def _good(question: Question) -> bool:
    return question.rcode == 0 and question.answers > 0


def _answered(question: Question, within_ms: float) -> bool:
    return bool(question.answered_ns) and _good(question) and question.milliseconds <= within_ms
