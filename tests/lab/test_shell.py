"""`lab shell` leaves a cluster up, and what it prints works."""

import subprocess
import sys
from pathlib import Path

from proxy.lab import namespaces, tools
from tests import peers

RUN = {"send through kube-proxy", "send through Sidestep", "kube-proxy's rules", "Sidestep", "the API server"}


def test_the_cluster_outlives_the_command_and_its_lines_work(root: None) -> None:
    shell = subprocess.run(
        [sys.executable, "-m", "proxy", "lab", "shell", "--mode", "iptables"],
        capture_output=True,
        text=True,
        cwd=peers.ROOT,
        check=False,
    )
    assert shell.returncode == 0, shell.stderr
    first, *lines = shell.stdout.splitlines()
    run = first.split()[1]
    try:
        told = {title.rstrip(): command for title, _, command in (line.partition("  ") for line in lines)}
        said = {
            title: subprocess.run(["sh", "-c", command.strip()], capture_output=True, text=True, cwd=peers.ROOT)
            for title, command in told.items()
            if title
            in (
                "send through kube-proxy",
                "send through Sidestep",
                "kube-proxy's rules",
                "Sidestep",
                "the API server",
            )
        }
        assert {title: ran.stderr for title, ran in said.items() if ran.returncode} == {}
        assert "10.96.0.20/32" in said["kube-proxy's rules"].stdout
        assert "monitoring/statsd" in said["Sidestep"].stdout
        kubectl = told.get("the API server")  # it is printed where there is one
        assert kubectl is None or kubectl.split()[4] == tools.find("kubectl")
        received = Path(told["what the StatsD pod received"].split()[-1])
        tools.until(lambda: received.exists() and received.read_text().count("hits:1|c") == 2, "both lines received")
    finally:
        assert namespaces.cleanup(runs=[run]) == (run,)
    assert not received.exists()
    assert not Path(f"/run/netns/sidestep-lab-{run}-node1").exists()
