"""Insights' answer, asked for now or saved before."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from renderer.errors import InputError
from renderer.render import Source

if TYPE_CHECKING:
    from renderer.insights.config import InsightsConfig

#: What the name of standard input is, on the command line.
STANDARD_INPUT: Final = "-"
# One byte more than any reader of documents accepts, so that too much is told and not cut.
_READ_BYTES: Final = 64 * 1024 * 1024 + 1


def fetched(config: InsightsConfig) -> Source:
    """Ask Insights. Raises what `Transport.send` raises."""
    from renderer.insights.policies import fetch_policies
    from renderer.insights.transport import Transport

    with Transport(config) as transport:
        return Source(name="Insights", data=fetch_policies(transport, config))


def saved(name: str) -> Source:
    """Read a saved answer from a file, or from standard input. Raises InputError when it can't be read."""
    try:
        if name == STANDARD_INPUT:
            return Source(name="standard input", data=sys.stdin.buffer.read(_READ_BYTES))
        with Path(name).open("rb") as file:
            return Source(name=name, data=file.read(_READ_BYTES))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"--from: {name} can't be read: {reason}.") from error
