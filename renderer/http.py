"""What every HTTP client of ours shares: its name, failures that may pass, and how long a server asks to wait."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from importlib import metadata

from renderer.errors import RemoteError


class PassingError(RemoteError):
    """A failure that may pass by itself; `retry_after_seconds` is what the server asked for, if it did.

    `refused` is true when the answer makes it certain that the server did nothing.
    """

    def __init__(
        self, message: str, *, hint: str = "", retry_after_seconds: float | None = None, refused: bool = False
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_seconds = retry_after_seconds
        self.refused = refused


@cache  # it is read from a file, and asked for with every request
def user_agent() -> str:
    """Name this program and its version; a source tree that is not installed has none."""
    try:
        return f"on-demand-job-runner/{metadata.version('on-demand-job-runner')}"
    except metadata.PackageNotFoundError:
        return "on-demand-job-runner"


def retry_after_seconds(value: str, *, now: datetime) -> float | None:
    """Read a Retry-After header, seconds or an HTTP date (RFC 9110, 10.2.3); never negative, None if neither."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # a zone may be further away than any is
        return None
    if date.tzinfo is None:  # "-0000": UTC, from a zone that is not told
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds())
