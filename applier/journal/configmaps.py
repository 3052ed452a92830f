"""The store in the cluster itself: ConfigMaps in the lock's namespace, so that any machine can recover."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import stamina

from applier.journal.format import TRANSACTION, JournalError
from applier.journal.store import require_lock, unfenced
from applier.ports import Access, ConfigMaps, ServerRefused
from renderer.errors import ConfigurationError, NotPermitted, RemoteError
from renderer.manifest.jsontypes import JsonObject

_TRANSACTION: Final = "insights.fairwinds.com/transaction"
_DIGEST: Final = "insights.fairwinds.com/digest"
_HEAD: Final = "head"
_CHUNK: Final = "chunk"
#: As much of a digest as keeps the chunks of one transaction apart.
_NAMED_BY: Final = 16
_ATTEMPTS: Final = 4

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One sort of what is kept: what its ConfigMaps' names begin with, and their label; `called` is for messages."""

    prefix: str
    label: str
    called: str


JOURNALS: Final = Family(prefix="insights-journal-", label="insights.fairwinds.com/journal", called="journal")


class ConfigMapStore:
    """Heads and chunks as ConfigMaps. Every call may be made again after a lost answer, and is."""

    def __init__(
        self,
        config_maps: ConfigMaps,
        namespace: str,
        family: Family = JOURNALS,
        *,
        may_write: Callable[[], bool] = unfenced,
    ) -> None:
        """Take the namespace and what is kept there; nothing is asked yet."""
        self._config_maps = config_maps
        self._namespace = namespace
        self._family = family
        self._may_write = may_write

    @property
    def uses(self) -> tuple[Access, ...]:
        """See `Store`."""
        verbs = ("get", "update", "delete")
        return tuple(Access(group="", plural="configmaps", verb=verb, namespace=self._namespace) for verb in verbs)

    def fenced(self, may_write: Callable[[], bool]) -> ConfigMapStore:
        """See `Store`."""
        return ConfigMapStore(self._config_maps, self._namespace, self._family, may_write=may_write)

    @property
    def place(self) -> str:
        """See `Store`."""
        return f"namespace {self._namespace}"

    def heads(self) -> dict[str, bytes]:
        """See `Store`."""
        listed = self._list(f"{self._family.label}={_HEAD}")
        found = {one["metadata"]["name"].removeprefix(self._family.prefix): one for one in listed}
        return {name: _head_of(one) for name, one in found.items() if TRANSACTION.fullmatch(name)}

    def chunk(self, transaction: str, digest: str) -> bytes | None:
        """See `Store`."""
        found = self._permitted(
            lambda: self._config_maps.read_config_map(self._namespace, self._name(transaction, digest))
        )
        if found is None:
            return None
        try:
            return base64.b64decode((found.get("binaryData") or {}).get(_CHUNK) or "", validate=True)
        except (binascii.Error, ValueError, TypeError):
            return b""

    def put_chunk(self, transaction: str, digest: str, data: bytes) -> None:
        """See `Store`."""
        values = {"binaryData": {_CHUNK: base64.b64encode(data).decode()}, "immutable": True}
        self._create(self._body(transaction, _CHUNK, digest) | values)

    def put_head(self, transaction: str, data: bytes) -> None:
        """See `Store`."""
        self._create(self._body(transaction, _HEAD) | {"data": {_HEAD: data.decode()}})

    def replace_head(self, transaction: str, data: bytes) -> None:
        """See `Store`."""

        def replace() -> None:
            found = self._config_maps.read_config_map(self._namespace, self._name(transaction))
            if found is None:
                raise JournalError(f"The journal {transaction} in {self.place} was removed by somebody else.")
            if found.get("data") == {_HEAD: data.decode()}:
                return
            self._write({**found, "data": {_HEAD: data.decode()}})

        self._settled(replace)

    def remove_head(self, transaction: str) -> None:
        """See `Store`."""
        self._delete(self._name(transaction))

    def remove_chunks(self, transaction: str) -> None:
        """See `Store`."""
        for found in self._list(f"{self._family.label}={_CHUNK},{_TRANSACTION}={transaction}", metadata_only=True):
            self._delete(found["metadata"]["name"])

    def headless(self, lease: str) -> set[str]:  # noqa: ARG002 - the namespace has one Lease
        """See `Store`."""
        chunks = self._list(f"{self._family.label}={_CHUNK}", metadata_only=True)
        return {_transaction(found) for found in chunks} - self.heads().keys()

    def _list(self, selector: str, *, metadata_only: bool = False) -> list[JsonObject]:
        found = self._permitted(
            lambda: self._config_maps.list_config_maps(self._namespace, selector, metadata_only=metadata_only)
        )
        return [one for one in found if one["metadata"]["name"].startswith(self._family.prefix)]

    def _create(self, body: JsonObject) -> None:
        def create() -> None:
            try:
                self._write(body)
            except ServerRefused as error:
                name = body["metadata"]["name"]
                if error.status.reason != "AlreadyExists" or not self._holds(name, body):
                    raise

        self._settled(create)

    def _holds(self, name: str, body: JsonObject) -> bool:
        """Whether it is there as we would write it: an earlier answer was lost."""
        found = self._config_maps.read_config_map(self._namespace, name) or {}
        return all(found.get(part) == body.get(part) for part in ("data", "binaryData"))

    def _delete(self, name: str) -> None:
        def delete() -> None:
            require_lock(self._may_write)
            try:
                self._config_maps.delete_config_map(self._namespace, name)
            except ServerRefused as error:
                if error.status.code != 404:
                    raise

        self._settled(delete)

    def _write(self, body: JsonObject) -> None:
        # Asked just before: what was read for it, or an answer that got lost, may have taken longer than the Lease.
        require_lock(self._may_write)
        self._config_maps.write_config_map(body)

    def _settled(self, write: Callable[[], None]) -> None:
        """Write, again after a lost answer or a conflict: each write looks first, or does no harm twice."""

        def passing(error: Exception) -> bool:
            return isinstance(error, RemoteError) or (
                isinstance(error, ServerRefused) and error.status.reason == "Conflict"
            )

        def attempt() -> None:
            for again in stamina.retry_context(on=passing, attempts=_ATTEMPTS, timeout=None, wait_initial=0.1):
                with again:
                    write()

        self._permitted(attempt)

    def _permitted(self, call: Callable[[], T]) -> T:
        called = self._family.called
        try:
            return call()
        except NotPermitted as error:
            raise NotPermitted(
                f"This account may not read or keep a {called}. {error.message}",
                hint="Grant it get, list, create, update and delete on configmaps in the namespace "
                f"{self._namespace}, or keep journal and revisions on disk with --journal DIR.",
            ) from error
        except ServerRefused as error:
            if error.status.code == 404:
                raise ConfigurationError(
                    f"The namespace {self._namespace}, where each {called} is kept, does not exist on this cluster.",
                    hint="Create it, or name another with --lock-namespace (INSIGHTS_LOCK_NAMESPACE).",
                ) from error
            failure = ServerRefused(error.status, hint=error.hint)
            failure.message = f"The {called} can't be kept: {error.message}"
            raise failure from error

    def _body(self, transaction: str, part: str, digest: str = "") -> JsonObject:
        return _config_map(self._family, self._namespace, transaction, part, digest)

    def _name(self, transaction: str, digest: str = "") -> str:
        return _name(self._family, transaction, digest)


def likeness(namespace: str) -> JsonObject:
    """A head and what its ConfigMap looks like, for those who judge what may be written."""
    return {**_config_map(JOURNALS, namespace, "0" * 12, _HEAD, ""), "data": {"head": "{}"}}


def _config_map(family: Family, namespace: str, transaction: str, part: str, digest: str) -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": _name(family, transaction, digest),
            "namespace": namespace,
            "labels": {
                family.label: part,
                _TRANSACTION: transaction,
                "app.kubernetes.io/managed-by": "insights-applier",
            },
            "annotations": {_DIGEST: digest} if digest else {},
        },
    }


def _name(family: Family, transaction: str, digest: str = "") -> str:
    return f"{family.prefix}{transaction}{f'-{digest[:_NAMED_BY]}' if digest else ''}"


def _transaction(found: JsonObject) -> str:
    return str((found["metadata"].get("labels") or {}).get(_TRANSACTION, ""))


def _head_of(found: JsonObject) -> bytes:
    return str((found.get("data") or {}).get(_HEAD, "")).encode("utf-8", "surrogatepass")
