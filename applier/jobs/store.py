"""Keeps the record in one ConfigMap, and in it who works: each write names the version that it replaces.

A runner that was frozen or cut off, and lost the lead meanwhile, can't write over its follower's record: the server
refuses its version. A leader is taken for dead when its record stood still for so long on the follower's own clock;
clocks of different machines are never compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from applier.jobs.ports import Clock, JobsApi
from applier.jobs.record import Entry, Record, dumped, fitting, loaded, merged
from applier.ports import Forbidden, ServerRefused
from renderer import logs
from renderer.errors import RemoteError
from renderer.manifest.jsontypes import JsonObject

log = logs.get_logger()

#: The ConfigMap, which the chart does not know of.
NAME: Final = "on-demand-job-runner-record"
_KEY: Final = "record.json"
_LABELS: Final = {"app.kubernetes.io/managed-by": "on-demand-job-runner"}
#: How often a write is tried whose version somebody else was faster to replace.
_ROUNDS: Final = 5


class RecordStore:
    """The record as this process, `identity`, knows it; `lead_seconds` is how long a leader may be silent."""

    def __init__(
        self,
        api: JobsApi,
        *,
        identity: str,
        organization: str,
        cluster: str,
        clock: Clock,
        lead_seconds: float,
    ) -> None:
        """Nothing is asked yet."""
        self._api = api
        self._identity = identity
        self._blank = Record(organization=organization, cluster=cluster)
        self._clock = clock
        self._lead_seconds = lead_seconds
        self._config_map: JsonObject | None = None
        self._stored = self._blank
        self._seen: tuple[str, float] = ("", 0.0)
        self._writes = 0
        #: Who leads, as far as this process knows.
        self.leader = ""

    def lead(self) -> Record | None:
        """Become the one who works, and give the record that was found; None when another one is.

        Raises InputError when the record can't be read, and what the API raises.
        """
        asked = self._clock.monotonic()  # before: an answer that was long in coming must not look like silence
        found = self._read()
        version = _version(self._config_map)
        if self._seen[0] != version:
            self._seen = (version, self._clock.monotonic())
        self.leader = found.leader
        is_dead = self._seen[0] == version and asked - self._seen[1] >= self._lead_seconds
        if found.leader not in ("", self._identity) and not is_dead:
            return None
        kept = self._of_this_cluster(found)
        try:
            self._write(kept)
        except ServerRefused as error:
            if error.status.code in (404, 409):
                return None
            raise
        if found.leader not in ("", self._identity):
            log.warning("The runner before this one has been silent for too long; this one works now", was=found.leader)
        self.leader = self._identity
        return kept

    def save(self, record: Record, *, leave: bool = False) -> Record | None:
        """Keep the record, and stay the leader, or with `leave` be it no longer; gives it with what others added.

        None means that another runner leads now. What this one claimed and nobody has kept yet is in its record then.
        Raises what the API raises; whether the record was kept is not known then, and `save` may be called again.
        """
        for _ in range(_ROUNDS):
            record = fitting(record, now=self._clock.now())
            try:
                self._write(record, leave=leave)
            except ServerRefused as error:
                if error.status.code not in (404, 409):
                    raise
                base, fresh = self._stored, self._read()
                if self._config_map is None:
                    log.warning("Somebody deleted the record of on-demand jobs; it is made anew", config_map=NAME)
                elif fresh.leader != self._identity:
                    self.leader = fresh.leader
                    self._hand_over([entry for entry in record.entries if entry.id not in base.ids()])
                    return None
                record = merged(base, record, fresh)
            else:
                return record
        raise RemoteError(f"The ConfigMap {NAME} changes all the time: it could not be written.")

    def has_kept(self, entry: Entry) -> bool:
        """Whether the entry is in the record for certain."""
        return entry.id in self._stored.ids()

    def _hand_over(self, entries: list[Entry]) -> None:
        """Give the leader what was claimed here and is on no record."""
        for _ in range(_ROUNDS):
            if not entries:
                return
            try:
                self._put(self._stored.with_added(entries))
            except ServerRefused as error:
                if error.status.code != 409:
                    raise
                self._read()
            else:
                log.warning("Jobs claimed here were handed to the runner that works now", jobs=[e.id for e in entries])
                return
        raise RemoteError(f"The ConfigMap {NAME} changes all the time: it could not be written.")

    def _of_this_cluster(self, found: Record) -> Record:
        """The record, without what was claimed for another cluster of Insights: nobody can report that from here."""
        if (found.organization, found.cluster) == (self._blank.organization, self._blank.cluster):
            return found
        if found.entries:
            log.error(
                "The record holds jobs of another cluster of Insights, which are dropped: Insights keeps them",
                organization=found.organization,
                cluster=found.cluster,
                jobs=sorted(found.ids()),
            )
        return self._blank

    def _read(self) -> Record:
        with _rights():
            self._config_map = self._api.read_record()
        if self._config_map is None:
            self._stored = self._blank
        else:
            text = (self._config_map.get("data") or {}).get(_KEY, "")
            self._stored = loaded(text, source=f"The ConfigMap {NAME}")
        return self._stored

    def _write(self, record: Record, *, leave: bool = False) -> None:
        self._writes += 1
        self._put(replace(record, leader="" if leave else self._identity, renewed=f"{self._identity} {self._writes}"))

    def _put(self, record: Record) -> None:
        metadata = {"name": NAME, "labels": _LABELS}
        if self._config_map is not None:
            metadata = self._config_map["metadata"]
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {_KEY: dumped(record)}}
        with _rights():
            self._config_map = self._api.write_record(body)
        self._stored = record


@contextmanager
def _rights() -> Iterator[None]:
    """Say which rights the record needs, where they are missing."""
    try:
        yield
    except Forbidden as error:
        raise Forbidden(
            f"This account may not keep the record of on-demand jobs, without which none may be claimed. "
            f"{error.status.message}",
            hint=f"Grant it get, create and update on configmaps in its own namespace (it uses {NAME}).",
            status=error.status,
        ) from error


def _version(config_map: JsonObject | None) -> str:
    return str(config_map["metadata"]["resourceVersion"]) if config_map else ""
