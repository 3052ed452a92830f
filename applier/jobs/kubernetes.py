"""The adapter to CronJobs, Jobs and the record, in one namespace, with no more rights than it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import quote

from applier.cluster.connection import Connection
from applier.diff import FIELD_MANAGER
from applier.jobs import remarks
from applier.jobs.store import NAME
from applier.jobs.watch import JobWatch
from applier.ports import Forbidden, ServerRefused
from renderer import logs
from renderer.errors import RemoteError
from renderer.job_manifest import LABEL_REQUEST
from renderer.manifest.jsontypes import Json, JsonObject

log = logs.get_logger()

# Short, for one turn asks several times, and the next turn asks again.
_READ_SECONDS: Final = 10.0
_ATTEMPTS: Final = 2
_PAGE: Final = 200


class KubernetesJobs:
    """`ports.JobsApi` over a connection; a right that the account has not is asked for once only."""

    def __init__(self, connection: Connection, namespace: str, *, ring: Callable[[], None] = lambda: None) -> None:
        """Take a connection; nothing is asked yet. `ring` is called when a watch has news."""
        self._connection = connection
        self._namespace = namespace
        self._refused: set[str] = set()
        self._watch = JobWatch(connection, self._path("batch/v1", "jobs"), ring)

    def cron_job(self, name: str) -> JsonObject | None:
        """See `ports.JobsApi`."""
        return self._get(self._path("batch/v1", "cronjobs", name))

    def job(self, name: str) -> JsonObject | None:
        """See `ports.JobsApi`."""
        return self._get(self._path("batch/v1", "jobs", name))

    def jobs(self, names: Sequence[str]) -> Mapping[str, JsonObject]:
        """See `ports.JobsApi`; one LIST where the account may, else a GET for each."""
        if not names:
            return {}
        listed = self._list("batch/v1", "jobs", {"labelSelector": LABEL_REQUEST}) if len(names) > 1 else None
        if listed is None:
            found = {name: self.job(name) for name in names}
            return {name: job for name, job in found.items() if job is not None}
        return {job["metadata"]["name"]: job for job in listed if job["metadata"]["name"] in names}

    def create_job(self, job: JsonObject) -> JsonObject:
        """See `ports.JobsApi`."""
        return _object(
            self._connection.write("POST", self._path("batch/v1", "jobs"), {"fieldManager": FIELD_MANAGER}, job)
        )

    def watch(self) -> None:
        """See `ports.JobsApi`."""
        self._watch.ensure()

    def remarks(self, job: JsonObject) -> str:
        """See `ports.JobsApi`."""
        uid, name = job["metadata"]["uid"], job["metadata"]["name"]
        pods = self._list("v1", "pods", {"labelSelector": f"batch.kubernetes.io/controller-uid={uid}"})
        if said := remarks.of_pods(pods or ()):
            return said
        events = self._list("v1", "events", {"fieldSelector": f"involvedObject.kind=Job,involvedObject.name={name}"})
        return remarks.of_events(events or (), uid=uid)

    def read_record(self) -> JsonObject | None:
        """See `ports.JobsApi`."""
        return self._get(self._path("v1", "configmaps", NAME))

    def write_record(self, config_map: JsonObject) -> JsonObject:
        """See `ports.JobsApi`."""
        query = {"fieldManager": FIELD_MANAGER}
        if "resourceVersion" in config_map["metadata"]:
            return _object(self._connection.write("PUT", self._path("v1", "configmaps", NAME), query, config_map))
        return _object(self._connection.write("POST", self._path("v1", "configmaps"), query, config_map))

    def _get(self, path: str) -> JsonObject | None:
        try:
            return _object(self._connection.get(path, seconds=_READ_SECONDS, attempts=_ATTEMPTS))
        except ServerRefused as error:
            if error.status.code == 404:
                return None
            raise

    def _list(self, version: str, resource: str, query: Mapping[str, str]) -> list[JsonObject] | None:
        """All that match, or None when the account may not list them."""
        if resource in self._refused:
            return None
        items: list[JsonObject] = []
        asked = {**query, "limit": str(_PAGE)}
        try:
            while True:
                page = _object(
                    self._connection.get(
                        self._path(version, resource), asked, seconds=_READ_SECONDS, attempts=_ATTEMPTS
                    )
                )
                items.extend(page.get("items") or ())
                token = (page.get("metadata") or {}).get("continue")
                if not token:
                    return items
                asked["continue"] = token
        except Forbidden:
            self._refused.add(resource)
            log.debug("The account may not list these; the work goes on without", resource=resource)
            return None

    def _path(self, version: str, resource: str, name: str = "") -> str:
        root = "/api/v1" if version == "v1" else f"/apis/{version}"
        collection = f"{root}/namespaces/{quote(self._namespace, safe='')}/{resource}"
        return f"{collection}/{quote(name, safe='')}" if name else collection


def _object(answer: Json) -> JsonObject:
    if not isinstance(answer, dict):
        raise RemoteError("The API server answered with something that is no object.")
    return answer
