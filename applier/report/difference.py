"""Pure: how one policy changes, as the lines of a unified diff of its YAML."""

from __future__ import annotations

import difflib
from typing import Final

from applier.change import Change
from renderer.errors import printable
from renderer.manifest import yamlio
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import Kind
from renderer.manifest.normalize import content

_AROUND: Final = 3


def lines(change: Change) -> list[str]:
    """The lines, each with its sign; where all is new or all goes, without places, which would say nothing."""
    before, after = (_yaml(body, change.identity.kind) for body in (change.before, change.after))
    found = list(difflib.unified_diff(before, after, lineterm="", n=_AROUND))[2:]
    return [printable(line) for line in found if not line.startswith("@@") or (before and after)]


def _yaml(body: JsonObject | None, kind: Kind) -> list[str]:
    return yamlio.dump(content(body, kind)).removesuffix("\n").split("\n") if body is not None else []
