"""The faults, each by its name, and what is to come of each at each class of requests."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import Enum
from typing import Final

from applier.transaction.writes import OnFailure
from renderer.errors import ExitCode
from renderer.manifest.identity import Identity
from tests.faults.bed import Bed, State
from tests.faults.policies import NEEDS
from tests.faults.requests import Point
from tests.support.proxy import (
    Behaviour,
    Exchange,
    duplicate,
    refuse,
    reset_after,
    reset_before,
    stall_after,
    stall_before,
    truncate,
)

REFUSALS: Final = ("403", "409", "422", "429", "500", "503")
#: The server acted, whatever the client hears of it.
_ACTED: Final = ("reset after", "stall after", "truncate", "duplicate")
FAULTS: Final[dict[str, Behaviour]] = {
    **{code: refuse(int(code)) for code in REFUSALS},
    "reset before": reset_before,
    "reset after": reset_after,
    "stall before": stall_before,
    "stall after": stall_after,
    "truncate": truncate,
    "duplicate": duplicate,
}


class Fault:
    """A fault that remembers whether it was `reached`; `late`: the server was too slow for what it is to show.

    The client waits so many `seconds` for what is stalled, and as long again for what the server may be making.
    """

    def __init__(self, name: str, *, seconds: float) -> None:
        """It is one of FAULTS, and not reached yet."""
        self._name, self._seconds = name, seconds
        self.reached = self.late = False

    def __call__(self, exchange: Exchange) -> None:
        """Behave, as `proxy.Behaviour`."""
        self.reached = True
        if self._name == "stall after":
            start, self.late = time.monotonic(), True
            exchange.forward()
            self.late = time.monotonic() - start > self._seconds
            exchange.stall()
        else:
            FAULTS[self._name](exchange)


class End(Enum):
    """What a fault at a request comes to."""

    DONE = "all is made, as if nothing had happened"
    NOTHING = "nothing is written"
    INVALID = "the policy is not valid"
    NOT_MADE = "the write is not made"
    MADE = "the write is made, but that can't be known"
    UNCLOSED = "all is made, but the journal can't be closed"


def end(point: Point, fault: str) -> End:
    """What is to come of it. GETs are repeated after what may pass, and so are the writes of lock and journal."""
    passing = fault not in ("403", "409", "422")
    kind = point.kind
    if kind.startswith("dry-run "):
        return End.DONE if fault == "duplicate" else End.NOTHING if passing else End.INVALID
    if kind.startswith("write "):
        return _write(kind, fault)
    if kind == "rights":  # asked once; a server that refuses to answer says nothing of them
        return End.NOTHING if passing and fault != "duplicate" else End.DONE
    if passing or kind in _NEVER_MATTER or (kind, fault) in _HARMLESS:
        return End.DONE
    if kind.startswith("look "):
        return End.MADE
    return End.UNCLOSED if kind in ("journal GET head", "journal PUT head") else End.NOTHING


def _write(kind: str, fault: str) -> End:
    # A conflict over what is as it was read is none; a create has read nothing.
    if fault in _ACTED or (fault == "409" and "create" not in kind):
        return End.DONE
    return End.NOT_MADE


#: Nothing depends on them, or they are tried again until they succeed.
_NEVER_MATTER: Final = frozenset(
    [
        "lease renew",
        "lease release",
        "schema index",
        "schema",
        "read back built-in",
        "read back custom",
        "journal list own chunks",
        "journal DELETE chunk",
        "journal DELETE head",
    ]
)
_HARMLESS: Final = frozenset(
    [
        ("lease take", "409"),
        ("list built-in not wanted", "403"),
        ("list custom not wanted", "403"),
        ("journal POST chunk", "409"),
        ("journal POST head", "409"),
        ("journal GET head", "409"),
        ("journal PUT head", "409"),
        ("cluster identity", "403"),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The exit codes that are right, and the state that belongs to them; `recoverable`: a journal is left."""

    codes: frozenset[int]
    state: State
    recoverable: bool = False


def expected(bed: Bed, point: Point, what: End, mode: OnFailure, order: list[Identity]) -> Expected:
    """How the run has to end in that mode. `order` are the policies in the order in which they are written."""
    if what is End.DONE or (what is End.MADE and mode is OnFailure.CONTINUE):
        return _expected(bed.after, ExitCode.OK)
    if what is End.UNCLOSED:
        return _expected(bed.after, ExitCode.ROLLBACK_INCOMPLETE, recoverable=True)
    if what is End.NOTHING or (what is End.INVALID and mode is not OnFailure.CONTINUE):
        return _expected(bed.before, *_FAILED_BEFORE)
    if mode is OnFailure.ROLLBACK:
        return _expected(bed.before, ExitCode.ROLLED_BACK)
    return (_continued if mode is OnFailure.CONTINUE else _stopped)(bed, point, what, order)


def _continued(bed: Bed, point: Point, what: End, order: list[Identity]) -> Expected:
    """All but that policy, and what can't be without it."""
    identity = point.identity
    left_out = {identity, *(one for one, needed in NEEDS.items() if needed == identity)}
    if what is End.INVALID and identity in NEEDS:  # that is known before anything is written
        left_out.add(NEEDS[identity])
    return _expected(_with(bed, [one for one in order if one not in left_out]), ExitCode.PARTLY_APPLIED)


def _stopped(bed: Bed, point: Point, what: End, order: list[Identity]) -> Expected:
    """All that comes before that policy."""
    assert point.identity is not None
    made = order[: order.index(point.identity) + (what is End.MADE)]
    if not made:
        return _expected(bed.before, ExitCode.ROLLED_BACK, ExitCode.ROLLBACK_INCOMPLETE)
    return _expected(_with(bed, made), ExitCode.ROLLBACK_INCOMPLETE, recoverable=True)


_FAILED_BEFORE: Final = (
    ExitCode.KIND_UNAVAILABLE,
    ExitCode.INVALID_POLICY,
    ExitCode.UNAVAILABLE,
    ExitCode.NOT_PERMITTED,
)


def _expected(state: State, *codes: ExitCode, recoverable: bool = False) -> Expected:
    return Expected(codes=frozenset(map(int, codes)), state=state, recoverable=recoverable)


def _with(bed: Bed, made: list[Identity]) -> State:
    """BEFORE with these changes made."""
    state = {identity: body for identity, body in bed.before.items() if identity not in made}
    return state | {identity: body for identity, body in bed.after.items() if identity in made}
