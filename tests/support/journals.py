"""Journals in memory: one for tests of what uses it, and the ConfigMaps that a real one is kept in."""

from __future__ import annotations

import base64
import copy
import itertools
from collections.abc import Callable, Sequence

from applier.change import Change
from applier.ports import ServerRefused, Status
from renderer.manifest.jsontypes import JsonObject


class MemoryJournal:
    """Keeps what it is told: `calls` in their order, and the recorded changes while the record stands."""

    def __init__(self) -> None:
        """Nothing is recorded."""
        self.calls: list[str] = []
        self.changes: tuple[Change, ...] | None = None

    def begin(self, changes: Sequence[Change]) -> None:
        """See `ports.Journal`."""
        self.calls.append("begin")
        self.changes = tuple(changes)

    def commit(self) -> None:
        """See `ports.Journal`."""
        self.calls.append("commit")
        self.changes = None

    def discard(self) -> None:
        """See `ports.Journal`."""
        self.calls.append("discard")
        self.changes = None


class SimulatedConfigMaps:
    """`ports.ConfigMaps` in memory, with the server's rules of identity and versions.

    `before_write` is called before each write and `after_write` after it; what they raise comes out of the write.
    """

    def __init__(self) -> None:
        """It is empty."""
        self.objects: dict[str, JsonObject] = {}
        self.before_write: Callable[[], None] = lambda: None
        self.after_write: Callable[[], None] = lambda: None
        self._versions = itertools.count(1)

    def list_config_maps(
        self,
        namespace: str,  # noqa: ARG002 - there is one
        selector: str,
        *,
        metadata_only: bool = False,
    ) -> list[JsonObject]:
        """See `ports.ConfigMaps`."""
        wanted = dict(term.split("=") for term in selector.split(","))
        found = [one for one in self.objects.values() if wanted.items() <= one["metadata"]["labels"].items()]
        return [copy.deepcopy({"metadata": one["metadata"]} if metadata_only else one) for one in found]

    def read_config_map(self, namespace: str, name: str) -> JsonObject | None:  # noqa: ARG002 - there is one
        """See `ports.ConfigMaps`."""
        return copy.deepcopy(self.objects.get(name))

    def write_config_map(self, body: JsonObject) -> JsonObject:
        """See `ports.ConfigMaps`."""
        self.before_write()
        name, version = body["metadata"]["name"], body["metadata"].get("resourceVersion")
        held = self.objects.get(name)
        if held is None and version:
            raise _refused(404, "NotFound")
        if held is not None and version is None:
            raise _refused(409, "AlreadyExists")
        if held is not None and version != held["metadata"]["resourceVersion"]:
            raise _refused(409, "Conflict")
        if held is not None and held.get("immutable"):
            raise _refused(422, "Invalid")
        assert len(base64.b64decode("".join((body.get("binaryData") or {}).values()))) <= 1_048_576
        stored = copy.deepcopy(body)
        stored["metadata"]["resourceVersion"] = str(next(self._versions))
        self.objects[name] = stored
        self.after_write()
        return copy.deepcopy(stored)

    def delete_config_map(self, namespace: str, name: str) -> None:  # noqa: ARG002 - there is one
        """See `ports.ConfigMaps`."""
        self.before_write()
        if name not in self.objects:
            raise _refused(404, "NotFound")
        del self.objects[name]
        self.after_write()


def _refused(code: int, reason: str) -> ServerRefused:
    return ServerRefused(Status(code=code, reason=reason, message="refused"))
