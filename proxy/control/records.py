"""An answer's records as text, for people. The only place where dnslib reads a message.

dnslib refuses legal messages (labels with bytes above 0x7f, empty RDATA), so it never decides anything: what it can't
read is shown as hex.
"""

from dnslib import DNSRecord


def records(message: bytes) -> list[str]:
    """A line per record in the usual notation; for what can't be shown so, one line with the bytes."""
    try:
        return [str(record) for record in DNSRecord.parse(message).rr]
    except Exception as error:
        return [f"({len(message)} bytes that can't be shown as records, {type(error).__name__}) {message.hex()}"]
