"""The file that lists the clusters of a fleet, and every mistake in it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from renderer import snapshot
from renderer.errors import DocumentErrors, InputError, Problem
from renderer.insights.config import name_problem
from renderer.manifest import yamlio
from renderer.manifest.jsontypes import Json

_FIELDS: Final = ("organization", "cluster", "path")
_LIMIT_BYTES: Final = 16 * 1024 * 1024
_EXAMPLE: Final = "A list, each item as {organization: acme, cluster: prod, path: acme/prod}."
_HINT: Final = f"Correct the items that are named, then run again. {_EXAMPLE}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One cluster of a fleet, and the folder of its snapshot: relative, below the directory of the fleet."""

    organization: str
    cluster: str
    path: str

    def __str__(self) -> str:
        return f"{self.organization}/{self.cluster}"


def read_fleet(file: Path, *, organization: str | None) -> list[Member]:
    """The clusters in the order of the file; `organization` is for the items that name none.

    Raises InputError when it can't be read, DocumentErrors with everything that is wrong with it.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(_LIMIT_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"--clusters: {file} can't be read: {reason}.") from error
    if len(data) > _LIMIT_BYTES:
        raise InputError(f"--clusters: {file} is larger than {_LIMIT_BYTES} bytes.")
    return parse_fleet(data, source=str(file), organization=organization)


def parse_fleet(data: bytes, *, source: str, organization: str | None) -> list[Member]:
    """The clusters that those bytes list. Pure. Raises DocumentErrors with everything that is wrong."""
    documents, problems = yamlio.load_documents(data, source=source)
    if problems:
        raise DocumentErrors(problems)
    if len(documents) != 1 or not isinstance(documents[0].value, list) or not documents[0].value:
        found = "more than one document" if len(documents) > 1 else "no list of clusters"
        raise DocumentErrors([Problem(source=source, message=f"holds {found}")], hint=_EXAMPLE)
    members, found_problems = _Reader(documents[0], organization).read()
    if found_problems:
        raise DocumentErrors(found_problems, hint=_HINT)
    return members


class _Reader:
    """Reads the items of one list, and remembers where each name and path was used first."""

    def __init__(self, document: yamlio.Document, organization: str | None) -> None:
        self._document = document
        self._organization = organization
        self._problems: list[Problem] = []

    def read(self) -> tuple[list[Member], list[Problem]]:
        members = [self._member(index, item) for index, item in enumerate(self._document.value)]
        known = {index: member for index, member in enumerate(members) if member}
        self._find_twins(known)
        self._find_overlaps(known)
        return list(known.values()), self._problems

    def _say(self, message: str, *path: str | int) -> None:
        field = str(path[1]) if len(path) > 1 else ""
        self._problems.append(
            Problem(source=self._document.source, line=self._line(*path), field=field, message=message)
        )

    def _line(self, *path: str | int) -> int:
        return self._document.line_of(*path)

    def _member(self, index: int, item: Json) -> Member | None:
        if not isinstance(item, dict):
            self._say(f"item {index + 1} is not a map of {', '.join(_FIELDS)}", index)
            return None
        for key in item:
            if key not in _FIELDS:
                self._say(f"is not known; an item has {', '.join(_FIELDS)}", index, key)
        values = {"organization": self._organization, **item}
        wrong = {field: _field_problem(field, values.get(field)) for field in _FIELDS}
        for field, message in wrong.items():
            if message:
                self._say(message, index, field)
        if any(wrong.values()):
            return None
        path = PurePosixPath(values["path"]).as_posix()
        return Member(organization=values["organization"], cluster=values["cluster"], path=path)

    def _find_twins(self, members: dict[int, Member]) -> None:
        first: dict[tuple[str, str], int] = {}
        for index, member in members.items():
            earlier = first.setdefault((member.organization, member.cluster), index)
            if earlier != index:
                self._say(
                    f"{member} is listed twice: line {self._line(earlier, 'cluster')} has it too", index, "cluster"
                )

    def _find_overlaps(self, members: dict[int, Member]) -> None:
        first: dict[PurePosixPath, int] = {}
        for index, member in members.items():
            earlier = first.setdefault(PurePosixPath(member.path), index)
            if earlier != index:
                line = self._line(earlier, "path")
                self._say(f"{member.path!r} is used twice: line {line} has it too", index, "path")
        for path, index in first.items():
            outer = next((first[parent] for parent in path.parents if parent in first), None)
            if outer is not None:
                line = self._line(outer, "path")
                self._say(f"{str(path)!r} lies inside {members[outer].path!r}, the path of line {line}", index, "path")


def _field_problem(field: str, value: Json) -> str:
    if value is None or value == "":
        default = ", and --organization (FAIRWINDS_ORG) is not either" if field == "organization" else ""
        return f"is not set{default}"
    if not isinstance(value, str):
        return f"{str(value)[:40]!r} is not a text; put it in quotes"
    return _path_problem(value) if field == "path" else name_problem(value)


def _path_problem(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        return f"{value!r} is not accepted; it takes the path of a folder below --out, without .."
    if not value.isprintable() or any(part.startswith(".") or part != part.strip() for part in path.parts):
        return (
            f"{value!r} is not accepted; no folder of it may begin with a dot, nor begin or end with a space, "
            "nor hold a control character"
        )
    return ""


def left_over(out: Path, members: Iterable[Member]) -> Iterator[str]:
    """The folders below `out`, sorted, that hold a snapshot which is none of the members': of clusters that are gone.

    Hidden folders, and those inside a snapshot, are not searched.
    """
    wanted = {member.path for member in members}
    for folder, subfolders, names in os.walk(out):
        path = Path(folder).relative_to(out).as_posix()
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        if path in wanted:
            subfolders.clear()
        elif snapshot.LOCK in names and path != ".":
            subfolders.clear()
            yield path
