"""The scenarios, a readable file each, in the order of the table.

A module defines one subclass of `Scenario`; its instance stands here.
"""

from proxy.lab.scenario import Scenario

SCENARIOS: tuple[Scenario, ...] = ()
