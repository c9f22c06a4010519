"""What the race scenario says of the kernel. test_scenarios.py runs it."""

import pytest

from proxy.lab.scenarios.a_aaaa_race import told


@pytest.mark.parametrize(
    ("lost", "insert_failed", "clash_resolve", "said"),
    [
        (3, 3, 0, "this kernel loses halves: 3 of 200 pairs lost one, insert_failed 3"),
        (0, 2, 0, "this kernel loses halves: 0 of 200 pairs lost one, insert_failed 2"),
        (0, 0, 170, "not here: of 200 pairs 170 clashed, this kernel resolved it and lost no half"),
        (0, 0, 0, "not here: of 200 pairs none clashed"),
    ],
)
def test_the_counters_are_told_in_words(lost: int, insert_failed: int, clash_resolve: int, said: str) -> None:
    assert told(200, lost, insert_failed, clash_resolve) == said
