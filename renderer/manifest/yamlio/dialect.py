"""Finds what libyaml accepts, but Kubernetes' older YAML reader refuses or reads in another way.

These are few and rare, so a cheap search decides whether a document gets the second pass at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from yaml import CBaseLoader
from yaml.events import CollectionEndEvent, CollectionStartEvent, ScalarEvent, StreamEndEvent

from renderer.manifest.yamlio.construct import Finding

_SUSPECT: Final = re.compile(rb"\\/|\?|\xef\xbb\xbf|![^\s!]*,")
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_BYTE_ORDER_MARK: Final = "\ufeff"


def not_utf8(text: bytes) -> Finding | None:
    """The first place that isn't UTF-8; Kubernetes would put another character there."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        start = text.rfind(b"\n", 0, error.start) + 1
        column = len(text[start : error.start].decode())
        return Finding(line=text.count(b"\n", 0, error.start), column=column, message="not UTF-8")
    return None


def differences(text: bytes) -> tuple[Finding, ...]:
    """Everything in a document that libyaml could read, but Kubernetes would not read as libyaml does."""
    if not _SUSPECT.search(text):
        return ()
    source = text.decode()
    return (*_byte_order_marks(source), *_scalars(text, source))


def _byte_order_marks(source: str) -> Iterator[Finding]:
    for line, content in enumerate(source.split("\n")):
        if _BYTE_ORDER_MARK in content:
            column = content.index(_BYTE_ORDER_MARK)
            message = 'a byte order mark within the text; delete it, or write it as "\\uFEFF"'
            yield Finding(line=line, column=column, message=message)


def _scalars(text: bytes, source: str) -> Iterator[Finding]:
    next_event = CBaseLoader(text).get_event
    #: For each collection that is open, whether it is written in [] or {}.
    flow: list[bool] = []
    while type(event := next_event()) is not StreamEndEvent:
        if isinstance(event, CollectionStartEvent):
            flow.append(bool(event.flow_style))
        elif isinstance(event, CollectionEndEvent):
            flow.pop()
        elif isinstance(event, ScalarEvent) and (message := _difference(event, source, bool(flow) and flow[-1])):
            assert event.start_mark is not None  # noqa: S101 (libyaml marks every event)
            yield Finding(line=event.start_mark.line, column=event.start_mark.column, message=message)


def _difference(event: ScalarEvent, source: str, in_flow: bool) -> str:
    assert event.start_mark is not None  # noqa: S101 (libyaml marks every event)
    assert event.end_mark is not None  # noqa: S101
    start, end = event.start_mark.index, event.end_mark.index
    if event.style == '"' and "/" in _ESCAPE.findall(source[start:end]):
        return r"Kubernetes does not know the escape `\/`; write `/`"
    if in_flow and not event.style and "?" in event.value:
        return "Kubernetes takes a `?` within [] or {} for a key; put the text in quotes"
    if in_flow and event.tag and not event.value and source.startswith(",", end):
        return "Kubernetes takes the `,` for a part of the tag; put a space before it"
    return ""
