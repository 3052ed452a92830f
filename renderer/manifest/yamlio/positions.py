"""Finds the lines on which the fields of a document stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import yaml
from yaml import CBaseLoader
from yaml.events import CollectionEndEvent, Event, MappingStartEvent, ScalarEvent, SequenceStartEvent

from renderer.manifest.yamlio import scalars


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """The 0-based line of a value, and of what is in it: by key in a mapping, by number in a list.

    A key's line is where the key stands; what an alias or a merge key brings in has the line of that.
    """

    line: int
    members: dict[str | int, Lines] = field(default_factory=dict)

    def at(self, path: Sequence[str | int]) -> int:
        """The line of the field, or of its nearest parent that is there."""
        found = self
        for name in path:
            inner = found.members.get(name)
            if inner is None:
                break
            found = inner
        return found.line


def lines(text: bytes) -> Lines | None:
    """The lines of a document, None if `text` isn't YAML. It reads all of it: once for however many fields."""
    try:
        return _lines(text)
    except (yaml.YAMLError, UnicodeDecodeError):
        return None


def _lines(text: bytes) -> Lines:
    next_event: Callable[[], Event] = CBaseLoader(text).get_event  # type: ignore[assignment]

    def value(event: Event, line: int) -> Lines:
        members: dict[str | int, Lines] = {}
        if type(event) is MappingStartEvent:
            while not isinstance(key := next_event(), CollectionEndEvent):
                name = _text(key) if type(key) is ScalarEvent else None
                value(key, 0)
                member = value(next_event(), _line(key))
                if name is not None:
                    members.setdefault(name, member)
        elif type(event) is SequenceStartEvent:
            while not isinstance(item := next_event(), CollectionEndEvent):
                members[len(members)] = value(item, _line(item))
        return Lines(line=line, members=members)

    next_event()
    next_event()
    root = next_event()
    return value(root, _line(root))


def _line(event: Event) -> int:
    assert event.start_mark is not None  # noqa: S101 (libyaml marks every event)
    return event.start_mark.line


def _text(key: ScalarEvent) -> str:
    typed = key.tag is None and key.implicit[0]
    try:
        return scalars.to_key(scalars.plain(key.value)) if typed else key.value
    except scalars.ScalarError:
        return key.value
