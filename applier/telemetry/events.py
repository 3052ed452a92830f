"""Kubernetes Events of what was done, where the account may create them; without that right nothing is missing."""

from __future__ import annotations

import queue
import secrets
import socket
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from applier.ports import Forbidden
from renderer import logs
from renderer.errors import Failure

if TYPE_CHECKING:
    from applier.cluster.connection import Connection
    from renderer.manifest.jsontypes import JsonObject

log = logs.get_logger()

#: The name that Events give as their source.
CONTROLLER: Final = "insights.fairwinds.com/on-demand-job-runner"
RUN_ID: Final = "insights.fairwinds.com/run-id"
_SECONDS: Final = 5
#: The server's limits.
_NOTE_BYTES: Final = 1024
_INSTANCE_CHARACTERS: Final = 128
_WAITING_MAX: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What happened to an object: `reason` in CamelCase for programs, `note` for people, `action` what was done."""

    regarding: JsonObject
    reason: str
    action: str
    note: str
    type: Literal["Normal", "Warning"]


class Events:
    """Creates Events of one namespace. It never raises; once refused for want of the right, it asks no more."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        """Nothing is asked yet."""
        self._connection = connection
        self._namespace = namespace
        self._permitted = True

    def create(self, event: Event) -> None:
        """Create it, within a few seconds or not at all."""
        if not self._permitted:
            return
        path = f"/apis/events.k8s.io/v1/namespaces/{self._namespace}/events"
        try:
            self._connection.write("POST", path, body=_body(event, self._namespace), seconds=_SECONDS)
        except Forbidden as error:
            self._permitted = False
            log.debug("Events are not created", why=error.status.message)
        except Failure as error:
            log.debug("An Event could not be created", why=error.message)


class EventQueue:
    """Creates Events in the background, so that nobody waits for them. As a context manager it works."""

    def __init__(self, events: Events) -> None:
        """Nothing is started yet."""
        self._events = events
        self._waiting: queue.Queue[Event | None] = queue.Queue(_WAITING_MAX)
        self._thread = threading.Thread(target=self._work, name="events", daemon=True)

    def put(self, event: Event) -> None:
        """Have it created; when too many wait already, it is dropped."""
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            log.debug("Too many Events wait; one is dropped", reason=event.reason)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(_SECONDS)

    def _work(self) -> None:
        while event := self._waiting.get():
            self._events.create(event)


def _body(event: Event, namespace: str) -> JsonObject:
    note = event.note.encode()[:_NOTE_BYTES].decode(errors="ignore")
    body: dict[str, Any] = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": f"{event.regarding['name'][:200].rstrip('-.')}.{secrets.token_hex(8)}",
            "namespace": namespace,
            "annotations": {RUN_ID: logs.run_id()},
        },
        "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": CONTROLLER,
        "reportingInstance": socket.gethostname()[:_INSTANCE_CHARACTERS],
        "action": event.action,
        "reason": event.reason,
        "regarding": {**event.regarding, "namespace": namespace},
        "note": note,
        "type": event.type,
    }
    return body
