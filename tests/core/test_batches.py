from hypothesis import given
from hypothesis import strategies as st

from proxy.core.batches import Batch, Outgoing, Oversize, datagrams
from proxy.core.kept import Raw

TEXTS = st.lists(st.binary(min_size=1, max_size=40).filter(lambda text: b"\n" not in text))


@given(TEXTS, TEXTS, st.lists(st.integers(5, 80), min_size=1, max_size=4))
def test_every_line_goes_whole_to_each_path_that_takes_it(
    lines: list[bytes], folded: list[bytes], limits: list[int]
) -> None:
    endpoints = [Batch(f"192.0.2.{number}:8125", limit) for number, limit in enumerate(limits)]
    batch = endpoints[0] if len(limits) == 1 else Batch("", 0)
    batch += lines
    batch.released += [Raw(text, b"", 0.0) for text in folded]
    taken = list(datagrams(batch, endpoints))
    sent = [each for each in taken if isinstance(each, Outgoing)]
    for endpoint in endpoints:
        payloads = [each.payload for each in sent if each.endpoint == endpoint.endpoint]
        assert all(len(payload) <= endpoint.limit_bytes for payload in payloads)
        got = sorted(line for payload in payloads for line in payload.split(b"\n"))
        assert got == sorted(line for line in lines + folded if len(line) <= endpoint.limit_bytes)
    too_long = [each for each in taken if isinstance(each, Oversize)]
    for kept, is_folded in ((lines, False), (folded, True)):
        assert sum(each.lines for each in too_long if each.folded == is_folded) == sum(
            len(line) > max(limits) for line in kept
        )


@given(TEXTS, TEXTS)
def test_what_was_folded_comes_first_and_in_datagrams_of_its_own(lines: list[bytes], folded: list[bytes]) -> None:
    endpoint = Batch("192.0.2.1:8125", 100)
    endpoint += lines
    endpoint.released += [Raw(text, b"", 0.0) for text in folded]
    sent = [each for each in datagrams(endpoint, [endpoint]) if isinstance(each, Outgoing)]
    kinds = [each.parcel is None for each in sent]
    assert kinds == sorted(kinds)
    assert sum(each.lines for each in sent) == len(lines)
    assert sum(each.parcel.lines for each in sent if each.parcel is not None) == len(folded)


def test_copies_share_one_parcel() -> None:
    endpoints = [Batch("192.0.2.1:8125", 100), Batch("192.0.2.2:8125", 100)]
    batch = Batch("", 0)
    batch += [b"a:1|c", b"b:1|c"]
    first, second = datagrams(batch, endpoints)
    assert isinstance(first, Outgoing)
    assert isinstance(second, Outgoing)
    assert first.parcel is second.parcel
    assert first.parcel is not None
    assert (first.parcel.lines, first.parcel.open) == (2, 2)
    assert first.lines == second.lines == 0
