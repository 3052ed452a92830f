"""Prepared etcd data that already holds the CRDs, made once and copied for each cluster."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import shutil
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import requests

from ci.testbed import components, kyverno, paths, pki
from ci.testbed.api import Api
from ci.testbed.directory import ClusterDirectory
from ci.testbed.supervisor import Supervisor, missing
from ci.testbed.watcher import Watcher
from renderer.errors import RemoteError

#: Made by the apiserver itself on its first start with a UID of their own, by which a cluster is known: they
#: must not be the same in two clusters, nor anything that speaks of them.
_IDENTITIES: Final = (
    "namespaces",
    "configmaps",
    "serviceaccounts",
    "secrets",
    "services",
    "ranges",
    "leases",
    "events",
    "masterleases",
    "endpointslices",
)
_CRDS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_ESTABLISHED_S: Final = 60.0
_ORDERLY_S: Final = 30.0
#: Change this when the way a store is made changes.
_RECIPE: Final = "1"


def prepared(binaries: Path, source: Path) -> Path:
    """The etcd data directory to copy, made now (about 15 s) if it is not in the cache yet.

    `source` is Kyverno's. Several processes may ask at once: one makes it, the others wait.
    """
    files = kyverno.crd_files(source)
    stores = paths.cache() / "stores"
    store = stores / key([binaries / "etcd", binaries / "kube-apiserver"], files)
    if store.is_dir():
        return store
    stores.mkdir(parents=True, exist_ok=True)
    with (stores / f"{store.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not store.is_dir():
            _prepare(ClusterDirectory(stores / f"{store.name}.new"), binaries, files, store)
    return store


def key(binaries: Iterable[Path], files: Iterable[Path]) -> str:
    """A name for the store that these binaries and CRDs make; RemoteError for a binary that is missing.

    A binary counts by its path in the cache, size and time, because reading it would take longer.
    """
    digest = hashlib.sha256(_RECIPE.encode())
    for binary in binaries:
        try:
            status = binary.stat()
        except OSError as error:
            raise missing(binary.name, binary) from error
        digest.update(f"{binary.resolve()} {status.st_size} {status.st_mtime_ns}\n".encode())
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:24]


def _prepare(directory: ClusterDirectory, binaries: Path, files: list[Path], store: Path) -> None:
    """Run etcd and an apiserver once, write the CRDs, take out the identities, keep the data."""
    directory.create()
    with directory.locked():
        state = directory.claim(uuid.uuid4().hex)
        try:
            with Watcher(directory, state.mark):
                _fill(directory, Supervisor(directory, state, binaries), files)
            directory.etcd.rename(store)
        finally:
            directory.end()
            directory.remove()
            directory.path.rmdir()


def _fill(directory: ClusterDirectory, supervisor: Supervisor, files: list[Path]) -> None:
    credentials = pki.create(directory.pki)
    etcd = supervisor.spawn(components.etcd(directory.etcd))
    etcd_url = f"http://{components.LOOPBACK}:"
    supervisor.wait(etcd, lambda: etcd_answers(etcd.ports[0]))
    etcd_url += str(etcd.ports[0])
    apiserver = supervisor.spawn(components.apiserver(etcd.ports[0], credentials))

    def api() -> Api:
        server = f"https://{components.LOOPBACK}:{apiserver.ports[0]}"
        return Api(server, token=credentials.tokens["admin"], authority=credentials.authority)

    supervisor.wait(apiserver, lambda: api().answers("/readyz"))
    _write_crds(api(), files)
    supervisor.end("kube-apiserver", grace_s=_ORDERLY_S)
    for resource in _IDENTITIES:
        _forget(etcd_url, f"/registry/{resource}/")
    supervisor.end("etcd", grace_s=_ORDERLY_S)


def etcd_answers(port: int) -> bool:
    """True when an etcd on this port is ready (that it is ours must be asked of the kernel)."""
    try:
        with _direct() as session:
            return session.get(f"http://{components.LOOPBACK}:{port}/readyz", timeout=5).ok
    except requests.RequestException:
        return False


def _direct() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    return session


def _forget(etcd_url: str, prefix: str) -> None:
    """Delete every key below `prefix`, by etcd's JSON gateway."""
    end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    span = {"key": _base64(prefix), "range_end": _base64(end)}
    with _direct() as session:
        session.post(f"{etcd_url}/v3/kv/deleterange", json=span, timeout=30).raise_for_status()


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _write_crds(api: Api, files: list[Path]) -> None:
    for file in files:
        api.call("POST", _CRDS, kyverno.load(file.read_text()))
    deadline = time.monotonic() + _ESTABLISHED_S
    while waiting := [crd for crd in api.call("GET", _CRDS)["items"] if not _established(crd)]:
        if time.monotonic() > deadline:
            names = ", ".join(crd["metadata"]["name"] for crd in waiting)
            raise RemoteError(f"These CRDs were not established in {_ESTABLISHED_S:.0f} s: {names}.")
        time.sleep(0.1)


def _established(crd: dict[str, object]) -> bool:
    status = crd.get("status")
    conditions = status.get("conditions") if isinstance(status, dict) else None
    return any(condition["type"] == "Established" and condition["status"] == "True" for condition in conditions or [])


def copy(store: Path, target: Path) -> None:
    """A new cluster's etcd data."""
    shutil.copytree(store, target)
