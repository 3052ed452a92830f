"""Finds the line on which a field of a document stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import yaml
from yaml import CBaseLoader
from yaml.events import CollectionEndEvent, CollectionStartEvent, Event, MappingStartEvent, ScalarEvent

from renderer.manifest.yamlio import scalars


def find_line(text: bytes, path: Sequence[str | int]) -> int | None:
    """The 0-based line of the field, or of its nearest parent that is there; None if `text` isn't YAML.

    A key's line is where the key stands; what an alias or a merge key brings in has the line of that.
    """
    try:
        return _Walk(text).to(path)
    except (yaml.YAMLError, UnicodeDecodeError):
        return None


class _Walk:
    def __init__(self, text: bytes) -> None:
        self._next: Callable[[], Event] = CBaseLoader(text).get_event  # type: ignore[assignment]

    def to(self, path: Sequence[str | int]) -> int:
        self._next()
        self._next()
        event = self._next()
        line = _line(event)
        for name in path:
            found = self._member(name) if type(event) is MappingStartEvent else self._item(event, name)
            if found is None:
                break
            line, event = found
        return line

    def _member(self, name: str | int) -> tuple[int, Event] | None:
        while not isinstance(key := self._next(), CollectionEndEvent):
            self._skip(key)
            value = self._next()
            if type(key) is ScalarEvent and _text(key) == name:
                return _line(key), value
            self._skip(value)
        return None

    def _item(self, event: Event, index: str | int) -> tuple[int, Event] | None:
        if not isinstance(event, CollectionStartEvent):
            return None
        position = 0
        while not isinstance(item := self._next(), CollectionEndEvent):
            if position == index:
                return _line(item), item
            self._skip(item)
            position += 1
        return None

    def _skip(self, event: Event) -> None:
        """Go past a whole value, of which `event` is the first."""
        depth = 0
        while True:
            depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
            if depth == 0:
                return
            event = self._next()


def _line(event: Event) -> int:
    assert event.start_mark is not None  # noqa: S101 (libyaml marks every event)
    return event.start_mark.line


def _text(key: ScalarEvent) -> str:
    typed = key.tag is None and key.implicit[0]
    try:
        return scalars.to_key(scalars.plain(key.value)) if typed else key.value
    except scalars.ScalarError:
        return key.value
