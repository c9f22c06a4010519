"""The scenarios, a readable file each, in the order of the table.

A module defines one subclass of `Scenario`; its instance stands here.
"""

from proxy.lab.scenario import Scenario
from proxy.lab.scenarios.coredns_gone import CorednsGone
from proxy.lab.scenarios.coredns_pod_silent import CorednsPodSilent
from proxy.lab.scenarios.coredns_servfail import CorednsServfail
from proxy.lab.scenarios.coredns_slow import CorednsSlow
from proxy.lab.scenarios.pod_recreated_while_kube_proxy_is_away import PodRecreatedWhileKubeProxyIsAway
from proxy.lab.scenarios.rolling_update import RollingUpdate
from proxy.lab.scenarios.service_deleted import ServiceDeleted
from proxy.lab.scenarios.source_port_reused import SourcePortReused
from proxy.lab.scenarios.statsd_scaled_to_zero import StatsdScaledToZero

SCENARIOS: tuple[Scenario, ...] = (
    StatsdScaledToZero(),
    PodRecreatedWhileKubeProxyIsAway(),
    ServiceDeleted(),
    SourcePortReused(),
    CorednsGone(),
    RollingUpdate(),
    CorednsPodSilent(),
    CorednsSlow(),
    CorednsServfail(),
)
