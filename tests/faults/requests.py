"""The requests of a run: which one is which in every repetition of the run, and which are of one class."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from renderer.manifest.identity import Identity
from renderer.manifest.kinds import KINDS
from tests.faults.policies import AFTER, BEFORE
from tests.support.policies import identity_of
from tests.support.proxy import Predicate, Request

_JOURNAL: Final = re.compile(r"(insights-journal-|(?<=transaction=))[0-9a-z]+-\d+-[0-9a-f]{8}")
_DIGEST: Final = re.compile(r"(?<=<journal>)-[0-9a-f]{16}")
_OBJECT: Final = re.compile(r"/apis/([^/]+)/[^/]+(?:/namespaces/([^/]+))?/([^/]+)(?:/([^/]+))?")
_GROUPS: Final = {kind.group for kind in KINDS}
_POLICIES: Final = {kind.plural for kind in KINDS}
_WANTED: Final = {identity_of(body).kind for body in (*BEFORE, *AFTER)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """What tells one request of a run from the others, but for its repetitions: nothing in it changes between runs."""

    method: str
    path: str
    about: str = ""
    dry_run: bool = False

    def __str__(self) -> str:
        return " ".join(filter(None, [self.method, self.path, self.about, "dry run" if self.dry_run else ""]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The `nth` request of a run to an address, and the class that it is of."""

    address: Address
    nth: int
    kind: str

    @property
    def matching(self) -> Predicate:
        """Matches every request to the address."""
        return lambda request: address(request) == self.address

    @property
    def identity(self) -> Identity | None:
        """The policy that the request is for; None for all that are not for one."""
        found = _OBJECT.fullmatch(self.address.path)
        kind = found and next((one for one in KINDS if (one.group, one.plural) == (found[1], found[3])), None)
        name = found and (found[4] or self.address.about)
        return Identity(kind=kind, namespace=found[2] or "", name=name) if found and kind and name else None

    def __str__(self) -> str:
        return f"{self.address} ({self.nth})"


def plain(path: str) -> str:
    """A path without what is new in each run."""
    return _DIGEST.sub("-<digest>", _JOURNAL.sub("<journal>", path))


def address(request: Request) -> Address:
    """The address of a request."""
    path, about, body = plain(request.path), "", request.json
    if request.resource == "leases" and isinstance(body, dict):
        about = _lease(body["spec"])
    elif request.method == "POST" and isinstance(body, dict) and "name" in (body.get("metadata") or {}):
        about = plain(body["metadata"]["name"])
    elif request.resource == "configmaps":
        about = ",".join(plain(text) for text in request.query.get("labelSelector", ()))
    elif request.resource == "selfsubjectaccessreviews" and isinstance(body, dict):
        about = str(body["spec"]["resourceAttributes"])
    return Address(method=request.method, path=path, about=about, dry_run=request.dry_run)


def _lease(spec: dict[str, object]) -> str:
    if not spec["holderIdentity"]:
        return "release"
    return "take" if spec["acquireTime"] == spec["renewTime"] else "renew"


def points(requests: Iterable[Request]) -> list[Point]:
    """The points of a run, in the order in which its requests came."""
    seen: Counter[Address] = Counter()
    found = []
    written = False
    for request in requests:
        where = address(request)
        seen[where] += 1
        kind = _kind(request, where, written=written)
        written = written or kind.startswith("write ")
        found.append(Point(address=where, nth=seen[where], kind=kind))
    return found


def _kind(request: Request, where: Address, *, written: bool) -> str:
    """The class: requests of one class are made by the same code at the same stage of a run."""
    resource = request.resource
    if resource == "leases":
        return f"lease {where.about or 'read'}"
    if resource == "selfsubjectaccessreviews":
        return "rights"
    if "/kube-system" in where.path:
        return "cluster identity"
    if resource == "configmaps":
        return _journal(request.method, where)
    if resource in _POLICIES and request.group in _GROUPS:
        return _policy(request, written=written)
    return _discovery(where.path)


def _discovery(path: str) -> str:
    known = {"/apis": "discovery groups", "/openapi/v3": "schema index"}
    return known.get(path) or ("schema" if path.startswith("/openapi") else "discovery group version")


def _journal(method: str, where: Address) -> str:
    if "transaction=" in where.about:
        return "journal list own chunks"
    listed = where.about.rpartition("=")[2] if method == "GET" and where.about else ""
    if listed:
        return f"journal list {listed}s"
    return f"journal {method} {'chunk' if '<digest>' in where.path + where.about else 'head'}"


def _policy(request: Request, *, written: bool) -> str:
    """Built-in kinds and Kyverno's are served by different parts of the server."""
    method = request.method
    served = "built-in" if request.group == "admissionregistration.k8s.io" else "custom"
    collection = request.path.endswith(f"/{request.resource}")
    if method == "GET":
        if collection and written:
            return f"read back {served}"
        if collection:
            wanted = (request.group, request.resource) in {(kind.group, kind.plural) for kind in _WANTED}
            return f"list {served}{'' if wanted else ' not wanted'}"
        return f"look {served}"
    verb = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}[method]
    return f"{'dry-run' if request.dry_run else 'write'} {verb} {served}"


def representatives(found: Iterable[Point]) -> list[Point]:
    """One point of each class; of writes the last one, when most is there to be taken back."""
    chosen: dict[str, Point] = {}
    for point in found:
        sequential = point.kind.startswith(("write ", "look "))
        before = chosen.get(point.kind)
        # Others come in any order.
        if before is None or sequential or (str(point.address), point.nth) < (str(before.address), before.nth):
            chosen[point.kind] = point
    return list(chosen.values())
