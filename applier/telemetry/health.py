"""Pure: whether a process that stays is alive, and whether it does its work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: So many turns in a row that reached nobody make it unready: one is not worth an alarm.
UNREACHED_TURNS: Final = 3


class Health:
    """What probes are told. A process works in turns, and says before each how long it may take."""

    def __init__(self, *, clock: Callable[[], float], within: float) -> None:
        """The first turn is to end within so many seconds of `clock`."""
        self._clock = clock
        self._unreached = UNREACHED_TURNS
        self.expect(within)

    def expect(self, within: float) -> None:
        """It is not stuck before so many seconds have passed without another word."""
        self._due = self._clock() + within

    def turned(self, *, reached: bool) -> None:
        """A turn is over; `reached` says whether whom it needs to reach has answered."""
        self._unreached = 0 if reached else self._unreached + 1

    def stuck(self) -> str:
        """Why the process should be started anew, or ""."""
        late = self._clock() - self._due
        return f"nothing has been done for {late:.0f} s longer than it may take" if late > 0 else ""

    def unready(self) -> str:
        """Why it does not do its work, or ""."""
        if self.stuck():
            return self.stuck()
        if self._unreached < UNREACHED_TURNS:
            return ""
        return "Insights or the cluster has not been reached yet, or not for some time; the log says why"
