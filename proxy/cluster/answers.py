"""What the API server's answers have in common: lists, `Status`, and failure as an error."""

import msgspec

LONGEST_WAIT = 1_000_000_000
"""Seconds that a server may ask for; who waits has a bound of its own."""


class ApiError(Exception):
    """A request failed; the text names the URL. `reason` is a short word to count by."""

    def __init__(self, text: str, reason: str, *, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.reason = reason
        """`credentials`, `connection`, `timeout`, `silence`, `half_line`, `line_too_long`, `too_long`, `not_json`,
        `other_kind`, or what the server says: `status`, `expired`, `too_large_version`."""
        self.status = status
        """The HTTP or `Status` code, 0 where there is none."""
        self.retry_after = retry_after


class ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class ObjectList(msgspec.Struct, rename="camel"):
    """A list of objects of one kind, its items as they came."""

    kind: str
    metadata: ListMeta
    items: list[msgspec.Raw] | None = None


class Cause(msgspec.Struct):
    reason: str = ""


class StatusDetails(msgspec.Struct, rename="camel"):
    causes: list[Cause] | None = None
    retry_after_seconds: int = 0


class Status(msgspec.Struct):
    """How the server says no."""

    kind: str
    code: int = 0
    reason: str = ""
    message: str = ""
    details: StatusDetails | None = None

    def as_error(self, where: str, reason: str = "status", retry_after: float | None = None) -> ApiError:
        """`reason` counts unless the `Status` is of a kind that has its own."""
        details = self.details or StatusDetails()
        too_large = any(cause.reason == "ResourceVersionTooLarge" for cause in details.causes or ()) or (
            "Too large resource version" in self.message
        )
        expired = self.code == 410 or self.reason in ("Expired", "Gone")
        reason = "expired" if expired else "too_large_version" if too_large else reason
        told = float(min(max(details.retry_after_seconds, 0), LONGEST_WAIT)) or None
        wait = told if retry_after is None else retry_after
        text = f"{where}: {self.code} {self.reason}: {self.message[:300]}"
        return ApiError(text, reason, status=self.code, retry_after=wait)
