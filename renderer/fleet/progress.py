"""Shows how far a fleet has come: a bar on a terminal, a log line for each cluster elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TextIO, cast

import click

from renderer import logs
from renderer.fleet.run import Outcome, Tally
from renderer.fleet.writers import Failed

# Back to the start of the line, and delete to its end (ECMA-48: CR, EL).
_CLEAR_LINE: Final = "\r\x1b[K"


@contextmanager
def shown(tally: Tally, stream: TextIO, log_level: str) -> Iterator[Callable[[Outcome], None]]:
    """Give what is to be called with each outcome, which counts and shows it; the log goes to `stream`."""

    def log(outcome: Outcome) -> None:
        tally.add(outcome)
        _log(outcome)

    if not stream.isatty():
        yield log
        return
    with click.progressbar(length=tally.total, label="Clusters", file=stream, show_pos=True) as bar:

        def advance(outcome: Outcome) -> None:
            tally.add(outcome)
            if isinstance(outcome.result, Failed):
                _log(outcome)
            bar.update(1)

        logs.configure(cast("TextIO", _OverBar(stream)), log_level)
        try:
            yield advance
        finally:
            logs.configure(stream, log_level)


class _OverBar:
    """A stream whose lines take the place of the bar, which the next step draws again below them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._begins_line = True

    def write(self, text: str) -> int:
        """Write; what stands on the line is deleted first."""
        if self._begins_line:
            self._stream.write(_CLEAR_LINE)
        self._begins_line = text.endswith("\n")
        return self._stream.write(text)

    def flush(self) -> None:
        """Flush the stream below."""
        self._stream.flush()

    def isatty(self) -> bool:
        """Whether people are reading."""
        return self._stream.isatty()


def _log(outcome: Outcome) -> None:
    member, result = outcome.member, outcome.result
    log = logs.get_logger().bind(organization=member.organization, cluster=member.cluster, path=member.path)
    if isinstance(result, Failed):
        log.error("Cluster failed", code=int(result.code), error=result.message, details=list(result.details))
        return
    log.info(
        "Cluster changed" if result.is_change else "Cluster as it was",
        policies=result.policies,
        added=result.added,
        changed=result.changed,
        removed=result.removed,
        **({"branch": result.branch, "commit": result.commit} if result.commit else {}),
    )
    for path in result.extra:
        log.warning("Not written by the renderer; the applier refuses the snapshot while it is there", file=path)
