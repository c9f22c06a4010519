import asyncio
import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from proxy.cluster.addresses import RememberedAddresses, needs_dns


def found(address: str) -> list[ResolveResult]:
    return [
        ResolveResult(
            hostname="kube", host=address, port=6443, family=socket.AF_INET, proto=0, flags=socket.AI_NUMERICHOST
        )
    ]


class FakeDns(AbstractResolver):
    """Answers with what `answer` is; raises it if it is an error, never answers if it is None."""

    def __init__(self) -> None:
        self.answer: list[ResolveResult] | OSError | None = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if self.answer is None:
            await asyncio.Event().wait()
        if isinstance(self.answer, OSError):
            raise self.answer
        return self.answer or []

    async def close(self) -> None:
        raise AssertionError("it outlives every session")


@pytest.mark.parametrize(
    ("server", "needed"),
    [
        ("https://10.96.0.1:443", False),
        ("https://[fd00::1]:443", False),
        ("http://127.0.0.1:8001/path", False),
        ("https://kubernetes.default.svc:443", True),
        ("https://localhost", True),
    ],
)
def test_it_knows_which_server_needs_dns(server: str, needed: bool) -> None:
    assert needs_dns(server) is needed


async def test_it_asks_each_time_and_remembers_the_last_answer_while_dns_fails() -> None:
    dns = FakeDns()
    addresses = RememberedAddresses(dns, patience=0.05)
    dns.answer = found("10.0.0.1")
    assert await addresses.resolve("kube", 6443) == found("10.0.0.1")
    dns.answer = found("10.0.0.2")
    assert await addresses.resolve("kube", 6443) == found("10.0.0.2")
    await addresses.close()
    for failure in (OSError("no such name"), None, []):
        dns.answer = failure
        assert await addresses.resolve("kube", 6443) == found("10.0.0.2")


async def test_a_name_that_never_had_an_address_is_an_error() -> None:
    dns = FakeDns()
    dns.answer = OSError("no such name")
    with pytest.raises(OSError, match="no such name"):
        await RememberedAddresses(dns).resolve("kube", 6443)
