"""Pure: an interval as a cron schedule, where cron can say it."""

from __future__ import annotations

from typing import Final

_MINUTE_S: Final = 60
_HOUR_S: Final = 60 * _MINUTE_S
_DAY_S: Final = 24 * _HOUR_S


def cron(seconds: float) -> str | None:
    """The schedule that starts every so many seconds, or None: cron begins anew each hour and each day.

    So it can say the minutes that divide an hour and the hours that divide a day, and neither 7m nor 90m.
    """
    if seconds == _DAY_S:
        return "0 0 * * *"
    if seconds >= _HOUR_S:
        every = _steps(seconds, _HOUR_S, of=_DAY_S)
        return f"0 {every} * * *" if every else None
    every = _steps(seconds, _MINUTE_S, of=_HOUR_S)
    return f"{every} * * * *" if every else None


def _steps(seconds: float, unit: int, *, of: int) -> str:
    """The field for every so many units, when they fill `of` without a rest; else ""."""
    if seconds < unit or seconds % unit or of % seconds:
        return ""
    return "*" if seconds == unit else f"*/{int(seconds) // unit}"
