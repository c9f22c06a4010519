"""The layout that workers write and control reads."""

import pytest

from proxy.core import counters
from proxy.core.counters import ANSWERED, DROPPED, FAMILIES, HISTOGRAMS, SLOTS, Histogram, answered_slot


def test_every_slot_belongs_to_one_counter() -> None:
    taken = [family.base + offset for family in FAMILIES for offset in range(family.size)]
    taken += [histogram.base + offset for histogram in HISTOGRAMS for offset in range(histogram.size)]
    gauges = (
        counters.HEARTBEAT,
        counters.CACHE_ENTRIES,
        counters.CACHE_BYTES,
        counters.IN_FLIGHT,
        counters.TCP_CLIENTS,
    )
    assert len(set(taken)) == len(taken)
    assert set(gauges).isdisjoint(taken)
    assert max(*taken, *gauges) < SLOTS


def test_names_are_told_apart() -> None:
    names = [metric.name for metric in (*FAMILIES, *HISTOGRAMS)]
    assert len(set(names)) == len(names)


def test_a_slot_is_found_by_its_labels_and_read_back() -> None:
    counts = [0] * SLOTS
    counts[DROPPED.slot("duplicate")] += 3
    assert dict(DROPPED.samples(counts))["duplicate",] == 3
    assert sum(count for _, count in DROPPED.samples(counts)) == 3


def test_an_unknown_label_is_an_error() -> None:
    with pytest.raises(KeyError):
        DROPPED.slot("bored")


@pytest.mark.parametrize(
    ("qtype", "rcode", "labels"),
    [
        (1, 0, ("A", "NOERROR")),
        (65, 3, ("HTTPS", "NXDOMAIN")),
        (65280, 16, ("other", "other")),
        (0, 6, ("other", "other")),
    ],
)
def test_an_answer_is_counted_by_type_and_rcode(qtype: int, rcode: int, labels: tuple[str, str]) -> None:
    assert answered_slot("udp", "cache", qtype, rcode) == ANSWERED.slot("udp", "cache", *labels)


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0.0, 0), (0.00003, 0), (0.000032, 1), (0.00006, 1), (0.00099, 5), (1.0, 15), (8.0, 18), (8.2, 19), (1e6, 19)],
)
def test_a_duration_falls_into_the_first_bucket_that_holds_it(seconds: float, bucket: int) -> None:
    histogram = Histogram(0, "h", "")
    counts = [0] * histogram.size
    histogram.observe(counts, seconds, 2)
    assert counts[bucket] == 2
    assert bucket == len(Histogram.BOUNDS) or seconds <= Histogram.BOUNDS[bucket]
    assert bucket == 0 or seconds > Histogram.BOUNDS[bucket - 1]
    assert counts[-1] == int(seconds * 1_000_000) * 2
