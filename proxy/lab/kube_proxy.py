"""kube-proxy on a node: the real one, or its rules written by the lab where it is not built.

What clients of a Service meet is decided by the rules that it left in the kernel, so a stopped one still acts.
"""

import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from proxy.lab import rules, tools
from proxy.lab.conntrack import Conntrack
from proxy.lab.nodes import Node
from proxy.lab.outcome import Mode
from proxy.lab.rules import Rules

POD_NETWORK = "10.244.0.0/16"
POD_NETWORK6 = "fd00:10:244::/48"


class KubeProxy:
    """One kube-proxy: `program`, or the lab itself without one. `wanted` says what the API server has, as rules."""

    def __init__(
        self, node: Node, mode: Mode, wanted: Callable[[], Rules], program: str | None, kubeconfig: Path
    ) -> None:
        self.node = node
        self.mode = mode
        self._kubeconfig = kubeconfig
        self._wanted = wanted
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._following = False
        self._turn = threading.Lock()

    @property
    def real(self) -> bool:
        """Whether it is kube-proxy itself."""
        return self._program is not None

    @property
    def what(self) -> str:
        """What stands in for kube-proxy here, for people."""
        if self._program is None:
            return f"rules in the shape of kube-proxy's ({self.mode}), written by the lab"
        told = subprocess.run([self._program, "--version"], capture_output=True, text=True, check=False)
        return f"kube-proxy {told.stdout.split()[-1] if told.stdout else ''} ({self.mode})"

    @property
    def running(self) -> bool:
        """Whether it follows the API server; frozen or not."""
        return self._following if self._process is None else self._process.poll() is None

    def start(self) -> None:
        """Start it and come back at once; `wait_synced` says when the rules are there."""
        if self.running:
            return
        if self._program is None:
            self._following = True
            self.follow()
            return
        self._process = self.node.spawn(self._program, *self._arguments(), log="kube-proxy")

    def _arguments(self) -> Sequence[str]:
        return (
            f"--kubeconfig={self._kubeconfig}",
            f"--proxy-mode={self.mode}",
            f"--hostname-override={self.node.name}",
            f"--cluster-cidr={POD_NETWORK},{POD_NETWORK6}",
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
        )

    def stop(self) -> None:
        """End it at once, as a crash does. Its rules stay, and nobody changes them."""
        self._following = False
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def signal(self, number: int) -> None:
        """SIGSTOP and SIGCONT freeze and thaw it. Raises RuntimeError when there is no process."""
        if self._process is None:
            raise RuntimeError("no kube-proxy process runs")
        self._process.send_signal(number)

    def follow(self) -> None:
        """Something changed in the API server: the real one hears of it by itself, ours is told like this."""
        if not self._following:
            return
        with self._turn:
            wanted = self._wanted()
            if self.mode == "nftables":
                self.node.run("nft", "-f", "-", given=rules.to_nft(wanted, POD_NETWORK))
            else:
                self.node.run("iptables-restore", given=rules.to_iptables(wanted, POD_NETWORK))
            # As 1.32 and later do: stale flows of Services that have endpoints are forgotten.
            conntrack = Conntrack(self.node)
            targets = {
                f"{one.address}:{one.port}": found for one, found in wanted.items() if found and one.protocol == "udp"
            }
            conntrack.delete(
                flow
                for flow in conntrack.flows()
                if flow.destination in targets and flow.target not in targets[flow.destination]
            )

    def programmed(self) -> Rules:
        """What the kernel's rules say now, asked of nft or iptables."""
        if self.mode == "iptables":
            return rules.from_iptables(self.node.run("iptables-save"))
        listed = self.node.run("sh", "-c", f"nft list table ip {rules.TABLE} 2>/dev/null || true")
        return rules.from_nft(listed)

    def synced(self) -> bool:
        """Whether the kernel's rules are what the API server says."""
        return self.programmed() == self._wanted()

    def wait_synced(self, limit: float = 60) -> float:
        """Until they are. Returns how long that took; raises RuntimeError with its log after `limit` seconds."""
        try:
            return tools.until(self.synced, f"{self.what} on {self.node.name} in step with the API server", limit)
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{self.node.log('kube-proxy')}") from None

    def clean(self) -> None:
        """Stop it and take its rules away."""
        self.stop()
        if self._program is not None:
            self.node.run(self._program, "--cleanup", f"--proxy-mode={self.mode}")
        elif self.mode == "nftables":
            self.node.run("nft", "-f", "-", given=f"table ip {rules.TABLE} {{}}\ndelete table ip {rules.TABLE}\n")
        else:
            self.node.run("iptables-restore", given=rules.to_iptables({}, POD_NETWORK))
