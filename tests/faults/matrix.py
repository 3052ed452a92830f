"""What is counted of the faults that were tried, and the judge of a run that one of them hit."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from applier.transaction.writes import OnFailure
from renderer.errors import ExitCode
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from tests.faults.bed import Bed, Ended, State
from tests.faults.edits import Edit
from tests.faults.faults import Expected, Fault, end, expected
from tests.faults.policies import CHANGES
from tests.faults.requests import Point
from tests.faults.runs import STALLED_SECONDS, Run
from tests.support.killed_runs import Runs, kill
from tests.support.proxy import call, not_to, refuse

#: When a run is killed: before the server hears of the request, or when it has acted.
When: TypeAlias = Literal["instead", "after"]

#: How often a fault is tried that was not reached, or that the machine was too slow for; each time with more patience.
_TRIES = 6


@dataclass(slots=True)
class Tally:
    """How many faults were tried, at which classes of requests, and what was wrong after them."""

    faults: int = 0
    half_applied: int = 0
    lost_edits: int = 0
    classes: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    def count(self, kind: str) -> None:
        """One fault more, at a request of that class."""
        self.faults += 1
        self.classes.add(kind)

    def told(self) -> dict[str, object]:
        """For a report: plain values."""
        return {
            "faults": self.faults,
            "half_applied": self.half_applied,
            "lost_edits": self.lost_edits,
            "classes": sorted(self.classes),
        }


def order(found: list[Point]) -> list[Identity]:
    """The policies in the order in which a run wrote them."""
    return [point.identity for point in found if point.kind.startswith("write ") and point.identity]


def undoing(bed: Bed) -> None:
    """Plan for the last change of the next run to be refused, so that all the others are taken back, or left."""
    bed.proxy.plan(refuse(400), at=CHANGES, matching=not_to("leases", "configmaps"))


def undo_points(bed: Bed) -> list[Point]:
    """The points of a rollback: those of such a run from the refusal on."""
    found = bed.points("rollback", lambda: bed.apply(bed.run), prepare=lambda: undoing(bed))
    writes = [place for place, point in enumerate(found) if point.kind.startswith("write ")]
    return found[writes[CHANGES - 1] + 1 :]


def one_fault(bed: Bed, tally: Tally, point: Point, name: str, mode: OnFailure, written: list[Identity]) -> None:
    """Apply with that fault, and judge: at once, and again when a recovery has followed where a journal is left."""
    case = f"{name} at {point} of an apply that does {mode.value}"
    ended = _hit(bed, tally, case, point, name, prepare=lambda: None, run=bed.apply, mode=mode)
    if ended is None:
        return
    tally.count(f"apply: {point.kind}")
    wanted = expected(bed, point, end(point, name), mode, written)
    judge(bed, tally, case, ended, wanted, point=point)


def judge(bed: Bed, tally: Tally, case: str, ended: Ended, wanted: Expected, *, point: Point | None = None) -> None:
    """Judge a run, which something befell at that point: at once, and again when a recovery followed."""
    _judge_at_once(bed, tally, case, ended, wanted, kind=point.kind if point else "")
    _judge_recovery(bed, tally, case, wanted)


def judge_by_its_code(bed: Bed, tally: Tally, case: str, ended: Ended, *, committed: bool = False) -> None:
    """Insist that all is made after a success, and nothing after a rollback.

    What else a run may say, a recovery alone makes all or nothing of it: all where it was `committed`.
    """
    done = ended.code == ExitCode.OK
    wanted = bed.after if done or committed else bed.before
    state = bed.state()
    if state != wanted and (done or ended.code == ExitCode.ROLLED_BACK):
        tally.half_applied += state not in (bed.before, bed.after)
        tally.wrong.append(f"{case}: the state is not what it says: {ended}")
    recovered(bed, tally, case, wanted)


def _judge_at_once(bed: Bed, tally: Tally, case: str, ended: Ended, wanted: Expected, *, kind: str) -> None:
    state = bed.state()
    if state != wanted.state:
        tally.half_applied += state not in (bed.before, bed.after)
        tally.wrong.append(f"{case}: the state is not what it should be; it ended with {ended}")
    elif ended.code not in wanted.codes:
        tally.wrong.append(f"{case}: exit code {ended.code}, not of {sorted(wanted.codes)}: {ended.said}")
    # What the fault kept from being tidied up, the next run tidies up.
    if bool(bed.journals()) != wanted.recoverable and not kind.startswith("journal "):
        tally.wrong.append(f"{case}: a journal is {'missing' if wanted.recoverable else 'left'}")
    if bed.is_locked() and kind != "lease release":
        tally.wrong.append(f"{case}: the Lease is not released")


def _judge_recovery(bed: Bed, tally: Tally, case: str, wanted: Expected) -> None:
    if not bed.journals():
        return
    recovered(bed, tally, case, bed.before if wanted.recoverable else wanted.state)


def recovered(bed: Bed, tally: Tally, case: str, wanted: State, *, run: Run | None = None) -> None:
    """Recover, undisturbed, and insist on the state."""
    ended, state = bed.recover(run), bed.state()
    if ended.code != ExitCode.OK or state != wanted or bed.journals():
        tally.half_applied += state not in (bed.before, bed.after)
        tally.wrong.append(f"{case}: not recovered: {ended}, {bed.journals()}")


def one_fault_of_an_undo(bed: Bed, tally: Tally, point: Point, name: str) -> None:
    """Apply and take back with that fault: it is tried again, and in the end all is as before."""
    case = f"{name} at {point} of a rollback"
    ended = _hit(bed, tally, case, point, name, prepare=lambda: undoing(bed), run=bed.apply)
    if ended is None:
        return
    tally.count(f"rollback: {point.kind}")
    wanted = Expected(codes=frozenset({int(ExitCode.ROLLED_BACK)}), state=bed.before)
    judge(bed, tally, case, ended, wanted, point=point)


def leave(bed: Bed) -> State:
    """Let a run stop before its last change; gives what it leaves, beside its journal."""
    undoing(bed)
    ended = bed.apply(bed.run.with_(mode=OnFailure.STOP.value))
    assert ended.code == ExitCode.ROLLBACK_INCOMPLETE, ended
    bed.proxy.clear()
    return bed.state()


def one_fault_of_a_recovery(bed: Bed, tally: Tally, point: Point, name: str) -> None:
    """Recover with that fault: it is done, or says that it is not; the next recovery does the rest."""
    case = f"{name} at {point} of a recovery"
    left: list[State] = []
    ended = _hit(bed, tally, case, point, name, prepare=lambda: left.append(leave(bed)), run=bed.recover)
    if ended is None:
        return
    tally.count(f"recovery: {point.kind}")
    state = bed.state()
    if state not in ((bed.before,) if ended.code == ExitCode.OK else (bed.before, left[-1])):
        tally.half_applied += 1
        tally.wrong.append(f"{case}: the state is not what it should be; it ended with {ended}")
    recovered(bed, tally, case, bed.before)


def one_kill(bed: Bed, tally: Tally, runs: Runs, point: Point, when: When, *, run: Run, committed: bool) -> None:
    """Kill an apply there and recover; `committed`, whether it is as good as done by then."""
    case = f"killed {when} {point} of an apply that does {run.mode}"
    for _ in range(_TRIES):
        bed.reset()
        bed.proxy.plan(call(lambda _: kill(run), when=when), at=point.nth, matching=point.matching)
        code = runs.run(run)
        bed.proxy.wait_until_left()
        bed.proxy.clear()
        if code == -signal.SIGKILL:
            break
    else:
        tally.wrong.append(f"{case}: not reached")
        return
    tally.count(f"kill: {point.kind}")
    recovered(bed, tally, case, bed.after if committed else bed.before)


def _hit(
    bed: Bed,
    tally: Tally,
    case: str,
    point: Point,
    name: str,
    *,
    prepare: Callable[[], object],
    run: Callable[[Run], Ended],
    mode: OnFailure = OnFailure.ROLLBACK,
) -> Ended | None:
    """Run with the fault, from BEFORE; None, and a wrong, when it is not reached."""
    for tried in range(_TRIES):
        bed.reset()
        prepare()
        stalled = STALLED_SECONDS * 2**tried
        fault = Fault(name, seconds=stalled)
        bed.proxy.plan(fault, at=point.nth, matching=point.matching)
        hurried = point if name.startswith("stall") else None
        ended = run(bed.run.with_(mode=mode.value, hurried=hurried, stalled=stalled))
        if fault.reached and not fault.late:
            return ended
    tally.wrong.append(f"{case}: not reached")
    return None


def one_edit(bed: Bed, tally: Tally, point: Point, edit: Edit, *, mode: OnFailure, undone: bool) -> None:
    """Apply while somebody edits a policy there: the edit stands, and all the others are before or after.

    With `undone` the last change is refused, besides.
    """
    case = f"{edit} at {point} of an apply that does {mode.value}{' and is refused' if undone else ''}"
    bed.reset()
    if undone:
        undoing(bed)
    bed.proxy.plan(edit.behaviour(bed), at=point.nth, matching=point.matching)
    ended = bed.apply(bed.run.with_(mode=mode.value))
    if not edit.made:
        tally.wrong.append(f"{case}: not reached")
        return
    tally.count(f"edit: {point.kind}")
    _judge_edit(bed, tally, case, edit, ended)
    if mode is OnFailure.ROLLBACK:
        _judge_others(bed, tally, case, edit)
    if bed.journals():
        _judge_edit(bed, tally, f"{case}, recovered", edit, bed.recover())
        _judge_others(bed, tally, f"{case}, recovered", edit)


def _judge_edit(bed: Bed, tally: Tally, case: str, edit: Edit, ended: Ended) -> None:
    if not edit.stands(bed):
        tally.lost_edits += 1
        tally.wrong.append(f"{case}: the edit is lost; it ended with {ended}")
    elif ended.code == ExitCode.DEFECT:
        tally.wrong.append(f"{case}: {ended}")


def _judge_others(bed: Bed, tally: Tally, case: str, edit: Edit) -> None:
    def others(state: State) -> dict[Identity, JsonObject]:
        return {identity: body for identity, body in state.items() if identity != edit.identity}

    state = others(bed.state())
    if state not in (others(bed.before), others(bed.after)):
        tally.half_applied += 1
        tally.wrong.append(f"{case}: the others are half applied")
