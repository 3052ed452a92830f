"""Durations as people write them (`30m`, `1h30m`): read into seconds, and written back for people."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

import durationpy

from renderer.errors import ConfigurationError

ACCEPTED: Final = "a duration such as 90s, 15m or 1h30m (units: h, m, s, ms), or 0"

# durationpy reads more than Go does (days, years, anything between two pairs): the shape is checked first.
_SHAPE: Final = re.compile(r"0|(?:(?:\d+(?:\.\d*)?|\.\d+)(?:h|m|s|ms|us|µs|μs|ns))+", re.ASCII)


def parse_duration(text: str, *, setting: str) -> float:
    """Read a duration in Go's syntax, as seconds; never negative.

    A bare number is refused, since nobody can tell its unit; only `0` needs none. `setting` names what was
    set, as the error shall name it. Raises ConfigurationError.
    """
    value = text.strip()
    if _SHAPE.fullmatch(value):
        try:
            # Typed as Any: durationpy publishes no types.
            parsed: timedelta = durationpy.from_str(value)
        except durationpy.DurationError:
            pass  # out of timedelta's range
        else:
            return parsed.total_seconds()
    raise ConfigurationError(f"{setting}: {_shown(value)} is not accepted; it takes {ACCEPTED}.")


def format_duration(seconds: float) -> str:
    """Write a duration for people, in Go's syntax: `5.2s`, `1m5.2s`, `350ms`, `0s`.

    It is rounded to tenths of a second, and to milliseconds below one second.
    """
    rounded = round(seconds, 1 if abs(seconds) >= 1 else 3)
    return str(durationpy.to_str(timedelta(seconds=rounded))) if rounded else "0s"


def _shown(value: str) -> str:
    return repr(value if len(value) <= 40 else f"{value[:40]}…")
