"""Watching Jobs in the background, so that the runner need not poll to hear of their ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from applier.cluster.connection import Connection
from applier.jobs.decisions import JobView
from applier.ports import Forbidden
from renderer import logs
from renderer.errors import Failure
from renderer.job_manifest import LABEL_REQUEST
from renderer.manifest.jsontypes import Json

log = logs.get_logger()

#: One watch; the next turn begins another, if Jobs still run.
_WATCH_SECONDS: Final = 60.0


class JobWatch:
    """Rings when a Job of ours begins to run or ends; never, where the account may not watch or nobody answers."""

    def __init__(self, connection: Connection, path: str, ring: Callable[[], None]) -> None:
        """`path` is where the Jobs are; nothing is asked yet."""
        self._connection = connection
        self._path = path
        self._ring = ring
        self._thread: threading.Thread | None = None
        self._refused = False
        #: What was rung for, by uid: a watch begins with all that is there.
        self._rung: set[tuple[str, bool]] = set()

    def ensure(self) -> None:
        """See to it that a watch is under way."""
        if self._refused or (self._thread and self._thread.is_alive()):
            return
        # Nothing waits for it: when the process ends, so does the watch.
        self._thread = threading.Thread(target=self._watch, name="watch of Jobs", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        try:
            for event in self._connection.lines(self._path, {"labelSelector": LABEL_REQUEST}, seconds=_WATCH_SECONDS):
                if self._is_news(event):
                    self._ring()
        except Forbidden:
            self._refused = True
            log.debug("The account may not watch Jobs; they are polled")
        except Failure as error:
            log.debug("The watch of Jobs ended", why=error.message)

    def _is_news(self, event: Json) -> bool:
        if not isinstance(event, dict) or event.get("type") not in ("ADDED", "MODIFIED", "DELETED"):
            return False
        view = JobView.of(event["object"])
        state = (view.uid, view.outcome is not None)
        if event["type"] == "DELETED":
            self._rung -= {(view.uid, False), (view.uid, True)}
            return view.outcome is None
        if state in self._rung or not (view.outcome or view.has_pods):
            return False
        self._rung.add(state)
        return True
