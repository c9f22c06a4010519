"""The scenarios, a readable file each.

A module defines one subclass of `Scenario`; its instance stands here, and this order is that of the table and of
`docs/lab.md`.
"""

from collections.abc import Iterable

from proxy.lab.scenario import Scenario, UnknownScenario
from proxy.lab.scenarios.a_aaaa_race import AAaaaRace
from proxy.lab.scenarios.api_server_away import ApiServerAway
from proxy.lab.scenarios.clock_jumps import ClockJumps
from proxy.lab.scenarios.conntrack_full import ConntrackFull
from proxy.lab.scenarios.conntrack_full_statsd import ConntrackFullStatsd
from proxy.lab.scenarios.coredns_gone import CorednsGone
from proxy.lab.scenarios.coredns_pod_silent import CorednsPodSilent
from proxy.lab.scenarios.coredns_replaced_meanwhile import CorednsReplacedMeanwhile
from proxy.lab.scenarios.coredns_servfail import CorednsServfail
from proxy.lab.scenarios.coredns_slow import CorednsSlow
from proxy.lab.scenarios.disk_full import DiskFull
from proxy.lab.scenarios.dns_worker_killed import DnsWorkerKilled
from proxy.lab.scenarios.everything_hangs import EverythingHangs
from proxy.lab.scenarios.everything_killed import EverythingKilled
from proxy.lab.scenarios.everything_killed_statsd import EverythingKilledStatsd
from proxy.lab.scenarios.large_dns_answer import LargeDnsAnswer
from proxy.lab.scenarios.ndots import Ndots
from proxy.lab.scenarios.new_release import NewRelease
from proxy.lab.scenarios.new_release_other_format import NewReleaseOtherFormat
from proxy.lab.scenarios.node_cache_stopped import NodeCacheStopped
from proxy.lab.scenarios.out_of_memory import OutOfMemory
from proxy.lab.scenarios.overlay_fragmentation import OverlayFragmentation
from proxy.lab.scenarios.pod_recreated_while_kube_proxy_is_away import PodRecreatedWhileKubeProxyIsAway
from proxy.lab.scenarios.rolling_update import RollingUpdate
from proxy.lab.scenarios.rolling_update_dns import RollingUpdateDns
from proxy.lab.scenarios.rule_count import RuleCount
from proxy.lab.scenarios.rules_flushed import RulesFlushed
from proxy.lab.scenarios.service_deleted import ServiceDeleted
from proxy.lab.scenarios.source_port_reused import SourcePortReused
from proxy.lab.scenarios.statsd_scaled_to_zero import StatsdScaledToZero
from proxy.lab.scenarios.uninstalled import Uninstalled

SCENARIOS: tuple[Scenario, ...] = (
    StatsdScaledToZero(),
    PodRecreatedWhileKubeProxyIsAway(),
    ServiceDeleted(),
    SourcePortReused(),
    AAaaaRace(),
    CorednsGone(),
    CorednsPodSilent(),
    CorednsSlow(),
    CorednsServfail(),
    ConntrackFullStatsd(),
    OverlayFragmentation(),
    LargeDnsAnswer(),
    Ndots(),
    RuleCount(),
    RollingUpdate(),
    RollingUpdateDns(),
    DnsWorkerKilled(),
    EverythingHangs(),
    EverythingKilled(),
    NodeCacheStopped(),
    Uninstalled(),
    NewRelease(),
    NewReleaseOtherFormat(),
    CorednsReplacedMeanwhile(),
    RulesFlushed(),
    ConntrackFull(),
    OutOfMemory(),
    DiskFull(),
    ClockJumps(),
    ApiServerAway(),
    EverythingKilledStatsd(),
)


def chosen(names: Iterable[str]) -> tuple[Scenario, ...]:
    """The scenarios of these names in the order of the table; all of them without a name. Raises UnknownScenario."""
    wanted = set(names)
    if unknown := wanted - {scenario.name for scenario in SCENARIOS}:
        known = ", ".join(scenario.name for scenario in SCENARIOS)
        raise UnknownScenario(f"no scenario is named {', '.join(sorted(unknown))}; there are: {known}")
    return tuple(scenario for scenario in SCENARIOS if not wanted or scenario.name in wanted)
