"""The scenarios, a readable file each, in the order of the table.

A module defines one subclass of `Scenario`; its instance stands here.
"""

from proxy.lab.scenario import Scenario
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
    RollingUpdate(),
)
