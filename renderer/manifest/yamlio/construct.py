"""Builds a document's JSON value from libyaml's events, as go.yaml.in/yaml/v2 (`decode.go`) builds it.

Its own events, not PyYAML's constructor: that has other rules for types, merge keys and anchors, expands
aliases without bound, and costs four times as much.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import yaml
from yaml import CBaseLoader
from yaml.events import (
    AliasEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.yamlio import scalars

#: What libyaml means where it says it in terms of its own grammar.
_MEANS: Final = {
    "did not find expected <document start>": "there is more after the end of the document, which Kubernetes"
    " would ignore; or a % directive is above, which it does not know",
}
#: How many characters aliases may add to one document: ten times what etcd stores of an object.
_MOST_COPIED: Final = 15_000_000
_MERGE_TAG: Final = "tag:yaml.org,2002:merge"
_MIXED: Final = "is merged with one of another type, and Kubernetes keeps either, by chance; quote both"
_TWICE: Final = "appears twice in one mapping, and Kubernetes would keep the last only"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Finding:
    """Something wrong at a place of a document's text; both 0-based, as libyaml counts."""

    line: int
    column: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A document's value (None when it holds none), the line where it starts, and all that is wrong."""

    value: Json = None
    line: int = 0
    findings: tuple[Finding, ...] = ()


class _Stop(Exception):
    """Reading this document any further makes no sense."""

    def __init__(self, event: Event, message: str) -> None:
        self.finding = _at(event, message)


@dataclass(slots=True)
class _Anchored:
    """What an anchor names: `value` is a Scalar or a finished collection; `nodes` how many it stands for."""

    collection: bool
    complete: bool = False
    value: Json = None
    nodes: int = 0
    #: How long its texts are together; counted when it is used.
    characters: int | None = None


def build(text: bytes, *, depth: int, nodes: int) -> Built:
    """Read one document (UTF-8, without a separator but perhaps a leading one) up to the limits given."""
    builder = _Builder(text, depth=depth, nodes=nodes)
    value, line = None, 0
    try:
        value, line = builder.document()
    except _Stop as stop:
        builder.findings.append(stop.finding)
    except yaml.YAMLError as error:
        builder.findings.append(_syntax_error(error, text))
    except UnicodeDecodeError:
        # Only a tag can hide such bytes, behind %-escapes.
        builder.findings.append(Finding(line=0, column=0, message="a tag is not UTF-8"))
    return Built(value=value, line=line, findings=tuple(builder.findings))


def _at(event: Event, message: str) -> Finding:
    mark = event.start_mark
    assert mark is not None  # noqa: S101 (libyaml marks every event)
    return Finding(line=mark.line, column=mark.column, message=message)


def _syntax_error(error: yaml.YAMLError, text: bytes) -> Finding:
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark or error.context_mark):
        message = "not YAML: " + ", ".join(filter(None, (error.context, error.problem)))
        return Finding(line=mark.line, column=mark.column, message=_MEANS.get(error.problem or "", message))
    offset = getattr(error, "position", 0)
    reason = getattr(error, "reason", str(error))
    start = text.rfind(b"\n", 0, offset) + 1
    column = len(text[start:offset].decode(errors="replace"))
    return Finding(line=text.count(b"\n", 0, offset), column=column, message=f"not YAML: {reason}")


class _Builder:
    """One pass over the events of one document."""

    def __init__(self, text: bytes, *, depth: int, nodes: int) -> None:
        self.findings: list[Finding] = []
        self._next: Callable[[], Event] = CBaseLoader(text).get_event  # type: ignore[assignment]
        self._anchors: dict[str, _Anchored] = {}
        #: The texts of keys that weren't strings: for Kubernetes `1` and `"1"` are two keys until the last step.
        self._typed_keys: set[str] = set()
        self._depth = 0
        self._depth_limit = depth
        self._nodes = 1
        self._from_aliases = 0
        self._copied = 0
        self._nodes_limit = nodes

    def document(self) -> tuple[Json, int]:
        """The value and the line where it starts."""
        self._next()
        if type(self._next()) is StreamEndEvent:
            return None, 0
        root = self._next()
        value = self._value(root)
        self._next()
        after = self._next()
        if type(after) is not StreamEndEvent:
            raise _Stop(after, "Kubernetes ignores what follows the end of a document (`...`)")
        return value, _at(root, "").line

    def _value(self, event: Event) -> Json:
        if type(event) is ScalarEvent:
            return self._json(self._scalar(event), event)
        if type(event) is AliasEvent:
            anchored = self._resolve(event)
            return _copy(anchored.value) if anchored.collection else self._json(anchored.value, event)
        assert isinstance(event, MappingStartEvent | SequenceStartEvent)  # noqa: S101 (libyaml's grammar)
        if event.anchor is None:
            return self._collection(event)
        anchored = self._anchors[event.anchor] = _Anchored(collection=True)
        before = self._nodes
        anchored.value = self._collection(event)
        anchored.nodes = self._nodes - before + 1
        anchored.complete = True
        return anchored.value

    def _collection(self, event: MappingStartEvent | SequenceStartEvent) -> Json:
        self._depth += 1
        if self._depth > self._depth_limit:
            raise _Stop(event, f"nested more than {self._depth_limit} deep")
        value = self._mapping() if type(event) is MappingStartEvent else self._sequence()
        self._depth -= 1
        return value

    def _sequence(self) -> list[Json]:
        items = []
        next_event = self._next
        while type(event := next_event()) is not SequenceEndEvent:
            self._nodes += 1
            if self._nodes > self._nodes_limit:
                raise self._too_many(event)
            text = _text(event)
            items.append(self._value(event) if text is None else text)
        return items

    def _mapping(self) -> JsonObject:
        result: JsonObject = {}
        #: The keys that are written here; None as long as there are no others in `result`.
        explicit: set[str] | None = None
        next_event = self._next
        while type(event := next_event()) is not MappingEndEvent:
            key = _text(event)
            if key is None:
                if _is_merge(event):
                    explicit = set(result) if explicit is None else explicit
                    self._merge(result)
                    continue
                key = self._key(event)
            self._nodes += 2
            if self._nodes > self._nodes_limit:
                raise self._too_many(event)
            value_event = next_event()
            value = _text(value_event)
            if value is None:
                value = self._value(value_event)
            if key is None:
                continue
            if key in (result if explicit is None else explicit):
                self.findings.append(_at(event, f"the key {key!r} {_TWICE}"))
            elif key in self._typed_keys and key in result:
                self.findings.append(_at(event, f"the key {key!r} {_MIXED}"))
            if explicit is not None:
                explicit.add(key)
            result[key] = value
        return result

    def _merge(self, into: JsonObject) -> None:
        """`<<:`; unlike elsewhere, what is merged replaces the keys above it, and the last of several wins."""
        event = self._next()
        # Kubernetes does not count the list of several mappings, only these.
        self._nodes += type(event) is not SequenceStartEvent
        value = self._value(event)
        parts = reversed(value) if type(event) is SequenceStartEvent else [value]
        for part in parts:
            if not isinstance(part, dict):
                self.findings.append(_at(event, "`<<` needs a mapping or a list of mappings"))
                return
            mixed = sorted(key for key in part if key in self._typed_keys and key in into)
            self.findings += (_at(event, f"the key {key!r} {_MIXED}") for key in mixed)
            into.update(part)

    def _key(self, event: Event) -> str | None:
        """The key's text; None, with a finding, where it can't be a key."""
        if type(event) is ScalarEvent:
            scalar = self._scalar(event)
        elif type(event) is AliasEvent and not (anchored := self._resolve(event)).collection:
            scalar = anchored.value
        else:
            if type(event) is not AliasEvent:
                self._value(event)
            self.findings.append(_at(event, "a mapping or a list can't be a key"))
            return None
        if type(scalar) is str:
            return scalar
        try:
            key = scalars.to_key(scalar)
        except scalars.ScalarError as error:
            self.findings.append(_at(event, str(error)))
            return None
        self._typed_keys.add(key)
        return key

    def _scalar(self, event: ScalarEvent) -> scalars.Scalar:
        text = event.value
        tag = event.tag
        value: scalars.Scalar = text
        if tag is None:
            if event.implicit[0]:
                value = self._checked(scalars.plain, event, text)
        elif tag != "!":
            value = self._checked(scalars.tagged, event, tag, text)
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchored(collection=False, complete=True, value=value, nodes=1)
        return value

    def _json(self, value: scalars.Scalar, event: Event) -> Json:
        return value if type(value) is str else self._checked(scalars.to_json, event, value)

    def _checked(self, function: Callable[..., Json], event: Event, *arguments: scalars.Scalar) -> Json:
        try:
            return function(*arguments)
        except scalars.ScalarError as error:
            self.findings.append(_at(event, str(error)))
            return None

    def _too_many(self, event: Event) -> _Stop:
        return _Stop(event, f"the document has more than {self._nodes_limit} keys and values")

    def _resolve(self, event: AliasEvent) -> _Anchored:
        """What the alias stands for, once it is known that writing it out stays within the limits."""
        anchored = self._anchors.get(event.anchor or "")
        if anchored is None:
            raise _Stop(event, f"there is no anchor &{event.anchor} above this alias")
        if not anchored.complete:
            raise _Stop(event, f"the anchor &{event.anchor} holds itself")
        self._nodes += anchored.nodes
        self._from_aliases += anchored.nodes
        if self._nodes > self._nodes_limit:
            raise _Stop(event, f"aliases make this document more than {self._nodes_limit} keys and values")
        # The YAML library of Kubernetes refuses what consists of aliases almost only.
        if self._from_aliases > 100 and self._nodes > 1000 and self._from_aliases > 0.99 * self._nodes:
            raise _Stop(event, "Kubernetes refuses a document that is made of aliases almost only")
        if anchored.characters is None:
            anchored.characters = _characters(anchored.value)
        self._copied += anchored.characters
        if self._copied > _MOST_COPIED:
            raise _Stop(event, f"aliases make this document more than {_MOST_COPIED} characters longer")
        return anchored


def _text(event: Event) -> str | None:
    """The text of a scalar that is a string beyond doubt, as nearly all are; None for any other event."""
    if type(event) is ScalarEvent and event.tag is None and event.anchor is None:
        text = event.value
        if event.implicit[1]:
            return text
        if text not in scalars.WORDS and text[0] not in scalars.NUMBER_STARTS and text != "<<":
            return text
    return None


def _is_merge(event: Event) -> bool:
    return type(event) is ScalarEvent and event.value == "<<" and (event.implicit[0] or event.tag == _MERGE_TAG)


def _copy(value: Json) -> Json:
    if type(value) is dict:
        return {key: _copy(item) for key, item in value.items()}
    if type(value) is list:
        return [_copy(item) for item in value]
    return value


def _characters(value: Json) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(len(key) + _characters(item) for key, item in value.items())
    return sum(map(_characters, value)) if isinstance(value, list) else 0
