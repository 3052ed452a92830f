"""The kinds of policy that we manage, and nothing else about them (versions come from the cluster's discovery)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

KYVERNO: Final = "kyverno.io"
POLICIES: Final = "policies.kyverno.io"
ADMISSION: Final = "admissionregistration.k8s.io"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Kind:
    """A managed kind: its API group, its name, the plural that URLs and directories use, and its scope."""

    group: str
    name: str
    plural: str
    namespaced: bool

    @property
    def resource(self) -> str:
        """`<plural>.<group>`, as kubectl names a resource and a snapshot names a directory."""
        return f"{self.plural}.{self.group}"


def _kinds(group: str, *, cluster: str, namespaced: str = "") -> list[Kind]:
    """Kinds whose plural is the regular English one of their name in lower case."""

    def plural(name: str) -> str:
        lower = name.lower()
        return f"{lower[:-1]}ies" if lower.endswith("y") else f"{lower}s"

    return [
        Kind(group=group, name=name, plural=plural(name), namespaced=scoped)
        for names, scoped in ((cluster, False), (namespaced, True))
        for name in names.split()
    ]


_CEL_KINDS = "ValidatingPolicy MutatingPolicy GeneratingPolicy DeletingPolicy ImageValidatingPolicy"

KINDS: Final[tuple[Kind, ...]] = tuple(
    sorted(
        [
            *_kinds(
                KYVERNO,
                cluster="ClusterPolicy ClusterCleanupPolicy",
                namespaced="Policy CleanupPolicy PolicyException",
            ),
            Kind(group=KYVERNO, name="GlobalContextEntry", plural="globalcontextentries", namespaced=False),
            *_kinds(
                POLICIES,
                cluster=_CEL_KINDS,
                namespaced="PolicyException " + " ".join(f"Namespaced{kind}" for kind in _CEL_KINDS.split()),
            ),
            *_kinds(
                ADMISSION,
                cluster="ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding "
                "MutatingAdmissionPolicy MutatingAdmissionPolicyBinding",
            ),
        ]
    )
)

_BY_NAME: Final = {(kind.group, kind.name): kind for kind in KINDS}
_BY_RESOURCE: Final = {kind.resource: kind for kind in KINDS}

#: Names that stand for more than one kind, so that the name alone does not say which.
SHARED_NAMES: Final = frozenset(kind.name for kind in KINDS if sum(other.name == kind.name for other in KINDS) > 1)


def find(group: str, name: str) -> Kind | None:
    """The managed kind of that API group and name, or None."""
    return _BY_NAME.get((group, name))


def of_resource(resource: str) -> Kind | None:
    """The managed kind whose `<plural>.<group>` this is, or None."""
    return _BY_RESOURCE.get(resource)
