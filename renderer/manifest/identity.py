"""How a policy is known: by group, kind, namespace and name, never by its name alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from renderer.manifest.kinds import SHARED_NAMES, Kind

# A file name has 255 bytes at most, a policy's name may have 253 and `.yaml` needs five.
_LONGEST_STEM: Final = 250
_KEPT_OF_A_LONG_NAME: Final = 200
# Git repositories are checked out on Windows too, where these can't be files whatever their ending.
_WINDOWS_DEVICES: Final = frozenset(
    ["con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))]
)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Identity:
    """The one policy of a cluster that has this kind, namespace ("" where the kind has none) and name."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        """`ClusterPolicy/name`, `Policy/namespace/name`; the group is added where two kinds share a name."""
        kind = f"{self.kind.name}.{self.kind.group}" if self.kind.name in SHARED_NAMES else self.kind.name
        return "/".join(part for part in (kind, self.namespace, self.name) if part)

    @property
    def path(self) -> str:
        """Where a snapshot keeps it: `<plural>.<group>/[<namespace>/]<name>.yaml`.

        A name that no file can have is changed with a `~`, which no policy's name holds.
        """
        return "/".join(
            part for part in (self.kind.resource, _portable(self.namespace), f"{_portable(self.name)}.yaml") if part
        )


def _portable(name: str) -> str:
    if len(name) > _LONGEST_STEM:
        return f"{name[:_KEPT_OF_A_LONG_NAME]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    if name.partition(".")[0] in _WINDOWS_DEVICES:
        return f"{name}~"
    return name
