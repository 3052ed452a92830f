"""What an impact needs from outside, as a protocol: the resources, from a cluster or a directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from applier.impact.exclusions import Exclusions
from applier.impact.patterns import Served
from renderer.manifest.jsontypes import JsonObject


class Source(Protocol):
    """Where resources come from. Every call only reads."""

    @property
    def name(self) -> str:
        """What people read of it: `the cluster`, or a directory."""
        ...

    def kinds(self) -> Sequence[Served]:
        """The kinds that are there. Raises RemoteError and the like where that can't be told."""
        ...

    def namespaces(self) -> Mapping[str, JsonObject] | None:
        """The metadata of the namespaces by their names; None where they may not be read."""
        ...

    def exclusions(self) -> Exclusions | None:
        """What Kyverno's settings exclude; None where they may not be read."""
        ...

    def pages(self, served: Served) -> Iterator[list[JsonObject]]:
        """The resources of a kind, some at a time, with apiVersion and kind; raises Failure if they can't be read."""
        ...
