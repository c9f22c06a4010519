"""How long sessions last, and which goes first."""

from proxy.core.sessions import Sessions


def sessions(idle: float = 60.0, most: int = 3) -> Sessions[str]:
    return Sessions(idle, most)


def test_it_finds_a_session_by_its_key():
    kept = sessions()
    assert kept.use("a", 0.0) is None
    assert kept.add("a", "session of a", 0.0) == []
    assert kept.use("a", 1.0) == "session of a"
    assert len(kept) == 1


def test_it_ends_what_is_idle_for_too_long():
    kept = sessions()
    kept.add("a", "A", 0.0)
    kept.add("b", "B", 10.0)
    assert kept.deadline() == 60.0
    assert kept.expire(59.9) == []
    assert kept.expire(60.0) == ["A"]
    assert kept.deadline() == 70.0
    assert kept.expire(1000.0) == ["B"]
    assert kept.deadline() is None


def test_it_keeps_what_is_used():
    kept = sessions()
    kept.add("a", "A", 0.0)
    kept.add("b", "B", 0.0)
    kept.use("a", 50.0)
    assert kept.expire(60.0) == ["B"]
    assert kept.deadline() == 110.0


def test_it_evicts_the_one_idle_longest():
    kept = sessions(most=2)
    kept.add("a", "A", 0.0)
    kept.add("b", "B", 1.0)
    kept.use("a", 2.0)
    assert kept.add("c", "C", 3.0) == ["B"]
    assert kept.all() == ["A", "C"]


def test_it_evicts_for_resources_but_never_the_one_that_needs_them():
    kept = sessions()
    kept.add("a", "A", 0.0)
    kept.add("b", "B", 1.0)
    assert kept.evict(but="a") == "B"
    assert kept.evict(but="a") is None
    assert kept.all() == ["A"]


def test_it_follows_new_limits():
    kept = sessions()
    for number, name in enumerate("abc"):
        kept.add(name, name.upper(), float(number))
    assert kept.configure(idle=5.0, most=1) == ["A", "B"]
    assert kept.deadline() == 7.0
    assert kept.configure(idle=5.0, most=4) == []


def test_it_ends_all():
    kept = sessions()
    kept.add("a", "A", 0.0)
    kept.add("b", "B", 0.0)
    assert kept.clear() == ["A", "B"]
    assert len(kept) == 0


def test_it_ends_one():
    kept = sessions()
    kept.add("a", "A", 0.0)
    kept.end("a")
    assert kept.use("a", 0.0) is None
    assert kept.deadline() is None
