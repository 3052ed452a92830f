"""Takes the writes of a run back: in the reverse order of its steps, again within a grace, and read back at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from applier.change import Action
from applier.ports import Cluster, ServerRefused
from applier.stop import Stop
from applier.transaction.parallel import in_parallel
from applier.transaction.undo import Written, spec, undo
from applier.transaction.writes import ChangedMeanwhile, WriteSettings
from renderer import logs
from renderer.errors import Failure, RemoteError, defect
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 3.0
#: How often one that can't be reached is tried before the next step begins.
_TRIES_IN_PLACE: Final = 3
_POLL_SECONDS: Final = 0.05
_NOT_KNOWN: Final = "What is there now is not known."

log = logs.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack:
    """What became of each write: taken back, left alone because somebody changed it since, or not taken back.

    `refused` are those of `not_undone` that the server refuses for what they hold: trying again is of no use.
    """

    restored: tuple[Identity, ...] = ()
    left_alone: tuple[tuple[Identity, str], ...] = ()
    not_undone: tuple[tuple[Identity, str], ...] = ()
    refused: frozenset[Identity] = frozenset()


def roll_back(
    cluster: Cluster,
    steps: Sequence[Sequence[Written]],
    stop: Stop,
    settings: WriteSettings,
    *,
    cut: threading.Event | None = None,
) -> RolledBack:
    """Take back what was written, or may have been, the last step first; raises no Exception.

    What fails is tried again until `settings.grace` is over, counted from when the run was to stop. After it each is
    still tried once, unless a signal asked for the stop: then somebody waits. No request starts with too little of
    the lease left; when another run took it, the rest is left to that run. `cut` ends it at once.
    """
    return _Rollback(cluster, stop, settings, cut or threading.Event()).run(steps)


class _Rollback:
    """One rollback; its threads share it, each with entries of its own."""

    def __init__(self, cluster: Cluster, stop: Stop, settings: WriteSettings, cut: threading.Event) -> None:
        self._cluster, self._stop, self._settings, self._cut = cluster, stop, settings, cut
        self._end = (time.monotonic() if stop.since is None else stop.since) + settings.grace
        self._restored: dict[Identity, JsonObject | None] = {}
        self._left: dict[Identity, str] = {}
        self._stuck: dict[Identity, str] = {}
        self._refused: set[Identity] = set()

    def run(self, steps: Sequence[Sequence[Written]]) -> RolledBack:
        entries = {entry.change.identity: entry for step in steps for entry in step}
        open_steps = [list(step) for step in reversed(steps)]
        pause = _FIRST_PAUSE
        while True:
            open_steps = [failed for step in open_steps if (failed := self._step(step))]
            if not open_steps and (late := self._made_late(entries)):
                open_steps = [late]
            if not open_steps or self._over():
                break
            self._cut.wait(min(pause, max(0.0, self._end - time.monotonic())))
            pause = min(2 * pause, _LONGEST_PAUSE)
        return RolledBack(
            restored=tuple(sorted(self._restored)),
            left_alone=tuple(sorted(self._left.items())),
            not_undone=tuple(self._told(entries)),
            refused=frozenset(self._refused & self._stuck.keys()),
        )

    def _told(self, entries: dict[Identity, Written]) -> Iterator[tuple[Identity, str]]:
        """What is there now of each that is stuck; of a server that does not answer it is asked once."""
        where = ""
        for identity, why in sorted(self._stuck.items()):
            if where != _NOT_KNOWN:
                where = whereabouts(self._cluster, entries[identity])
            yield identity, f"{where} {why}"

    def _over(self) -> bool:
        return self._cut.is_set() or self._stop.lost or time.monotonic() >= self._end

    def _step(self, step: Sequence[Written]) -> list[Written]:
        """Take a step back; gives what is to be tried again."""
        done = in_parallel(self._undone, step, concurrency=self._settings.concurrency, cut=self._cut)
        return [entry for entry, ended in zip(step, done, strict=True) if not ended]

    def _undone(self, entry: Written) -> bool:
        """Whether no more is to be done about it."""
        identity = entry.change.identity
        for attempt in range(_TRIES_IN_PLACE):
            if attempt:
                self._cut.wait(_FIRST_PAUSE * 2**attempt)
            if not self._may_try(entry, first=identity not in self._stuck):
                self._stuck.setdefault(identity, self._why_not())
                return False
            try:
                self._restored[identity] = undo(
                    self._cluster, entry, delete_timeout=self._settings.delete_timeout, stopped=self._shut
                )
            except ChangedMeanwhile as error:
                self._left[identity] = error.message
                log.warning("Write not undone", policy=str(identity), reason=error.message)
            except Exception as error:  # noqa: BLE001 - one that can't be taken back must not keep the others
                failure = error if isinstance(error, Failure) else defect(error)
                self._stuck[identity] = f"{failure.message} {failure.hint}".strip()
                refused = isinstance(error, ServerRefused) and error.status.code != 409
                (self._refused.add if refused else self._refused.discard)(identity)
                log.error("Write could not be undone", policy=str(identity), reason=failure.message)
                if isinstance(error, RemoteError):
                    continue
                return False
            else:
                log.info("Write undone", action=entry.change.action.value, policy=str(identity))
            self._stuck.pop(identity, None)
            return True
        return False

    def _may_try(self, entry: Written, *, first: bool) -> bool:
        """Wait until an attempt may start; False when none may any more."""
        while True:
            now = time.monotonic()
            late = now >= self._end and (not first or self._stop.signalled)
            if late or self._cut.is_set() or self._stop.lost:
                return False
            if now >= entry.unsettled_until and self._stop.may_write():
                return True
            if now >= self._end and not self._stop.may_write():
                return False
            self._cut.wait(_POLL_SECONDS)

    def _shut(self) -> bool:
        """Whether no request of an attempt under way may start any more."""
        late = self._stop.signalled and time.monotonic() >= self._end
        return late or self._cut.is_set() or not self._stop.may_write()

    def _why_not(self) -> str:
        if self._stop.lost:
            return "It is left to the run that has the lock now."
        if not self._stop.may_write():
            return "The Lease could not be renewed, so that nothing may be written."
        return "There was no time left to take it back."

    def _made_late(self, entries: dict[Identity, Written]) -> list[Written]:
        """Read back what was restored: what the server made after all, later than it may, is to be taken back again."""
        if not self._restored or self._over():
            return []
        try:
            live = self._cluster.observe(sorted({identity.kind for identity in self._restored})).objects
        except Failure as error:
            log.warning("The rollback could not be read back", reason=error.message)
            return []
        late = []
        for identity, left in list(self._restored.items()):
            found = live.get(identity)
            if _content(left, identity) == _content(found, identity):
                continue
            if entries[identity].unsettled_until and _is_made(entries[identity], left, found):
                late.append(entries[identity])
                del self._restored[identity]
            else:
                log.info("Changed by somebody else since it was restored", policy=str(identity))
        return late


def _content(body: JsonObject | None, identity: Identity) -> JsonObject | None:
    return None if body is None else content(body, identity.kind)


def _is_made(entry: Written, left: JsonObject | None, found: JsonObject | None) -> bool:
    """Whether the object, which the undo left so, now is as the write leaves it."""
    if entry.change.action is Action.DELETE:
        # Only that very object was to be deleted; one that was created again is somebody else's to delete.
        was = (entry.change.before or {})["metadata"]["uid"]
        return found is None and left is not None and left["metadata"]["uid"] == was
    return found is not None and spec(found) == spec(entry.after)


def whereabouts(cluster: Cluster, entry: Written) -> str:
    """What is there now, in words."""
    try:
        found = cluster.read(entry.change.identity)
    except Exception:  # noqa: BLE001 - it only adds to what is told
        return _NOT_KNOWN
    if found is None:
        return "It is deleted."
    if "deletionTimestamp" in found["metadata"]:
        return "It is being deleted."
    if spec(found) == spec(entry.after) and entry.change.action is not Action.DELETE:
        return "It is as this run wrote it."
    if entry.change.before is not None and spec(found) == spec(entry.change.before):
        return "It is as it was."
    return "It is neither as it was nor as this run wrote it."
