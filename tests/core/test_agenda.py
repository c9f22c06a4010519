"""Actions in order, and things to look at when their time has come."""

from proxy.core.agenda import Agenda
from proxy.core.pending import Probe
from proxy.core.upstreams import Upstream

FIRST, SECOND = Upstream("192.0.2.1:53", "."), Upstream("192.0.2.2:53", ".")


def test_actions_are_taken_once_and_in_order() -> None:
    agenda = Agenda()
    actions = [Probe(FIRST, b"1"), Probe(SECOND, b"2")]
    for action in actions:
        agenda.do(action)
    assert agenda.take_actions() == actions
    assert agenda.take_actions() == []


def test_nothing_is_due_before_its_time() -> None:
    agenda = Agenda()
    agenda.look_at(2.0, FIRST)
    assert agenda.next_time() == 2.0
    assert agenda.due(1.9) is None
    assert agenda.due(2.0) is FIRST
    assert agenda.next_time() is None


def test_what_is_due_comes_by_time_and_then_in_order() -> None:
    agenda = Agenda()
    for when, what in ((3.0, FIRST), (1.0, SECOND), (1.0, FIRST)):
        agenda.look_at(when, what)
    assert [agenda.due(5.0) for _ in range(4)] == [SECOND, FIRST, FIRST, None]
