"""Reads YAML and JSON as Kubernetes reads them, and writes the one canonical form of it.

A stream is split into documents before it is parsed, at the lines that start with `---`, as
k8s.io/apimachinery does (`YAMLReader`): so an error in one document hides none in another. Whatever can't be
read as Kubernetes reads it is a Problem with line and column; reading raises nothing else.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from renderer.errors import DocumentErrors, Problem
from renderer.manifest.jsontypes import Json
from renderer.manifest.yamlio import dialect, jsonstream
from renderer.manifest.yamlio.construct import Built, build
from renderer.manifest.yamlio.emitter import dump
from renderer.manifest.yamlio.positions import Lines, lines

__all__ = ["DEFAULT_LIMITS", "Document", "Limits", "dump", "load", "load_documents"]

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_SEPARATOR: Final = re.compile(rb"^---([^\n]*)\n", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one input may hold; more of anything is an error of its own.

    `bytes` and `documents` are those of the whole input, `depth` counts mappings and lists within each other,
    `nodes_after_aliases` the keys and values of one document, with its aliases written out.
    """

    bytes: int = 64 * 1024 * 1024
    documents: int = 20_000
    depth: int = 100
    nodes_after_aliases: int = 200_000


#: Ten thousand policies fit, and any single object that etcd would store (1.5 MB).
DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class _Chunk:
    """One document's part of the input, kept as a place in it: a copy of each would double the memory."""

    data: bytes
    start: int
    end: int
    first_line: int
    number: int

    @property
    def text(self) -> bytes:
        """The document's own bytes, without a byte order mark."""
        return self.data[self.start : self.end].removeprefix(_BYTE_ORDER_MARK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document: what Kubernetes would read (`value`, JSON types only), and where it stands.

    `source` is what the user calls the input, `number` counts from 1 as Kubernetes does (empty documents are
    left out, but counted), `line` is the first one of the content, from 1.
    """

    value: Json
    source: str
    number: int
    line: int
    chunk: _Chunk | None = field(default=None, repr=False, compare=False)

    def line_of(self, *path: str | int) -> int:
        """The line (from 1) of the field, or of the nearest parent that is there.

        It parses the document's text once more, since lines are only wanted for errors.
        """
        if self.chunk is None or not path:
            return self.line
        found = _asked.get(self.chunk)
        if found is None:
            found = lines(self.chunk.text) or Lines(line=self.line - self.chunk.first_line)
            _asked.clear()
            _asked[self.chunk] = found
        return self.chunk.first_line + found.at(path)


#: The lines of the document that was asked about last, for as long as it is there: errors come many to a document.
_asked: Final[weakref.WeakKeyDictionary[_Chunk, Lines]] = weakref.WeakKeyDictionary()


def load_documents(
    data: bytes, *, source: str, limits: Limits = DEFAULT_LIMITS
) -> tuple[list[Document], list[Problem]]:
    """Read every document of an input: those that can be read, and all that is wrong with the others."""
    documents: list[Document] = []
    problems: list[Problem] = []
    if len(data) > limits.bytes:
        message = f"{len(data)} bytes are more than the limit of {limits.bytes}"
        return [], [Problem(source=source, message=message)]
    for count, part in enumerate(_split(data, source), start=1):
        if count > limits.documents:
            line = part.line if isinstance(part, Problem) else part.first_line
            message = f"there are more than {limits.documents} documents"
            problems.append(Problem(source=source, line=line, message=message))
            break
        if isinstance(part, Problem):
            problems.append(part)
            continue
        built = _read(part, limits)
        problems += (
            Problem(
                source=source,
                line=part.first_line + finding.line,
                column=finding.column + 1,
                document=part.number,
                message=finding.message,
            )
            for finding in built.findings
        )
        if built.value is not None and not built.findings:
            line = part.first_line + built.line
            documents.append(Document(value=built.value, source=source, number=part.number, line=line, chunk=part))
    return documents, problems


def load(data: bytes, *, source: str) -> list[Document]:
    """Read every document of an input; raises DocumentErrors with all problems when there is one."""
    documents, problems = load_documents(data, source=source)
    if problems:
        raise DocumentErrors(problems)
    return documents


def _split(data: bytes, source: str) -> Iterator[_Chunk | Problem]:
    """The documents of a stream, and a Problem for each separator that Kubernetes would not accept."""
    data = data.removeprefix(_BYTE_ORDER_MARK).replace(b"\r\n", b"\n")
    if data and not data.endswith(b"\n"):
        data += b"\n"
    start, line, number = 0, 1, 0

    def chunk(end: int) -> _Chunk:
        return _Chunk(data=data, start=start, end=end, first_line=line, number=number)

    for separator in _SEPARATOR.finditer(data):
        rest = separator[1].strip()
        if rest and not rest.startswith(b"#"):
            shown = rest[:40].decode(errors="replace")
            message = f"only a comment may follow `---` on its line, not {shown!r}"
            at = line + data.count(b"\n", start, separator.start())
            yield Problem(source=source, line=at, column=4, message=message)
        elif separator.start() == start:
            # Nothing came before it, so it opens this document rather than ending one.
            continue
        if separator.start() > start:
            number += 1
            yield chunk(separator.start())
        line += data.count(b"\n", start, separator.end())
        start = separator.end()
    if start < len(data):
        number += 1
        yield chunk(len(data))


def _read(chunk: _Chunk, limits: Limits) -> Built:
    text = chunk.text
    if unreadable := dialect.not_utf8(text):
        return Built(findings=(unreadable,))
    as_json = None
    if chunk.number == 1:
        as_json = jsonstream.build(text, depth=limits.depth, nodes=limits.nodes_after_aliases)
        if as_json is not None and not as_json.findings:
            return as_json
    built = build(text, depth=limits.depth, nodes=limits.nodes_after_aliases)
    if as_json is not None:
        # The JSON decoder can't say where it found something; where YAML finds the same, it can.
        return built if built.findings and built.value is not None else as_json
    return built if built.findings else replace(built, findings=dialect.differences(text))
