"""Reading the kernel's counter. The rule that drops fragments is test_scenarios.py's part."""

from proxy.lab.fragments import fragments_created

SNMP = """\
Ip: Forwarding DefaultTTL InReceives ReasmReqds ReasmOKs ReasmFails FragOKs FragFails FragCreates OutTransmits
Ip: 1 64 1200 0 0 0 200 0 400 900
Icmp: InMsgs InErrors
Icmp: 3 0
"""


def test_fragments_created_are_read_by_their_name() -> None:
    assert fragments_created(SNMP) == 400
