"""Pure: what to say of a name or a value that is not known, and of those that may have been meant."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Sequence
from typing import Final

from renderer.manifest.jsontypes import Json

_MOST_NAMED: Final = 12
_MOST_PLACES: Final = 3
_LONGEST: Final = 60


def unknown_field(name: str, known: Collection[str], places: Sequence[str]) -> str:
    """What to say of a field that is not among the known ones; `places` are where one of its name has its place."""
    if meant := nearest(name, known):
        return f"is not a known field{meant}"
    if places and len(places) <= _MOST_PLACES:
        return f"is not a known field here; its place is {one_of(places)}"
    if known and len(known) <= _MOST_NAMED:
        return f"is not a known field; known here: {', '.join(sorted(known))}"
    return "is not a known field"


def nearest(name: str, known: Collection[str]) -> str:
    """`; did you mean a or b?`, or nothing when no known name resembles it."""
    folded = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), folded, n=2, cutoff=0.7)
    return f"; did you mean {one_of([folded[match] for match in close])}?" if close else ""


def one_of(names: Sequence[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def quoted(value: Json) -> str:
    """The value as JSON, cut when it is long; never a whole list or map."""
    if isinstance(value, dict | list):
        return "a map" if isinstance(value, dict) else "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
