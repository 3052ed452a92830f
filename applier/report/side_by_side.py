"""Pure: two texts side by side, line against line, the changed words marked; bounded for texts of any size."""

from __future__ import annotations

import difflib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

#: Lines that are compared line by line; beyond them the whole middle counts as replaced.
MOST_COMPARED: Final = 2_000
#: Rows of one difference that are kept; the rest is counted.
MOST_ROWS: Final = 1_500
_CONTEXT: Final = 3
#: Pairs of lines that are weighed against each other in one replaced block.
_MOST_PAIRS: Final = 2_500
#: Words of a line that are compared; a longer line is marked between its common ends.
_MOST_WORDS: Final = 400
#: Two lines as alike as this stand side by side, and their words are compared.
_ALIKE: Final = 0.4
_WORD: Final = re.compile(r"\w+|\s+|[^\w\s]")
_KEY: Final = re.compile(r"( *)((?:- )*)([\w./\"'-]+):(?: (.*))?$")

#: A piece of a line, and whether it differs from the other side.
Piece: TypeAlias = tuple[str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One line of one side, with its number from 1."""

    number: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What stands side by side; None where a side has nothing. `same` when both say the same."""

    before: Cell | None
    after: Cell | None
    same: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunk:
    """Neighbouring changes with some lines around them; `place` names the fields that they are in, outermost first."""

    place: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """All hunks, how many lines go and come, and how many rows were left out because there are too many."""

    hunks: tuple[Hunk, ...]
    removed: int
    added: int
    left_out: int = 0


_Code: TypeAlias = tuple[str, int, int, int, int]


def compare(before: Sequence[str], after: Sequence[str]) -> Difference:
    """Lay the lines of two YAML texts side by side."""
    codes = _opcodes(before, after)
    hunks: list[Hunk] = []
    room, left_out = MOST_ROWS, 0
    for group in _grouped(codes):
        rows = list(_rows(before, after, group))
        kept = rows[:room]
        room -= len(kept)
        left_out += len(rows) - len(kept)
        if kept:
            hunks.append(Hunk(place=_place(before, after, group), rows=tuple(kept)))
    changed = [code for code in codes if code[0] != "equal"]
    return Difference(
        hunks=tuple(hunks),
        removed=sum(code[2] - code[1] for code in changed),
        added=sum(code[4] - code[3] for code in changed),
        left_out=left_out,
    )


def _opcodes(before: Sequence[str], after: Sequence[str]) -> list[_Code]:
    """The opcodes of difflib, found between the common ends; one replacement where that is too much to compare."""
    head = _common(before, after)
    tail = _common(before[head:][::-1], after[head:][::-1])
    ends = len(before) - tail, len(after) - tail
    middle = before[head : ends[0]], after[head : ends[1]]
    if max(map(len, middle)) > MOST_COMPARED:
        codes: list[_Code] = [("replace", 0, len(middle[0]), 0, len(middle[1]))]
    else:
        codes = list(difflib.SequenceMatcher(None, *middle).get_opcodes())
    shifted = [(tag, a + head, b + head, c + head, d + head) for tag, a, b, c, d in codes]
    if head:
        shifted.insert(0, ("equal", 0, head, 0, head))
    if tail:
        shifted.append(("equal", ends[0], len(before), ends[1], len(after)))
    return [code for code in shifted if code[1] < code[2] or code[3] < code[4]]


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _grouped(codes: Sequence[_Code]) -> Iterator[list[_Code]]:
    """The changes with their context, those that are near one another together."""
    group: list[_Code] = []
    for number, (tag, a, b, c, d) in enumerate(codes):
        if tag != "equal":
            group.append((tag, a, b, c, d))
            continue
        first, last = number == 0, number == len(codes) - 1
        if not first and not last and b - a <= 2 * _CONTEXT + 1:
            group.append((tag, a, b, c, d))
            continue
        if not first:
            group.append((tag, a, min(b, a + _CONTEXT), c, min(d, c + _CONTEXT)))
            yield group
            group = []
        if not last:
            group = [(tag, max(a, b - _CONTEXT), b, max(c, d - _CONTEXT), d)]
    if any(code[0] != "equal" for code in group):
        yield group


def _rows(before: Sequence[str], after: Sequence[str], group: Sequence[_Code]) -> Iterator[Row]:
    for tag, a, b, c, d in group:
        if tag == "equal":
            for offset in range(b - a):
                yield Row(before=_plain(before, a + offset), after=_plain(after, c + offset), same=True)
            continue
        yield from _replaced(before, after, range(a, b), range(c, d))


def _replaced(before: Sequence[str], after: Sequence[str], left: range, right: range) -> Iterator[Row]:
    """Rows in which lines that resemble each other stand side by side, their words marked; the others fill up."""
    one, other = left.start, right.start
    alike = _alike([before[index] for index in left], [after[index] for index in right])
    for i, j in [*((left[i], right[j]) for i, j in alike), (left.stop, right.stop)]:
        for old, new in itertools.zip_longest(range(one, i), range(other, j)):
            yield Row(
                before=None if old is None else _plain(before, old),
                after=None if new is None else _plain(after, new),
            )
        if i < left.stop:
            words = _marked(before[i], after[j])
            yield Row(before=Cell(number=i + 1, pieces=words[0]), after=Cell(number=j + 1, pieces=words[1]))
        one, other = i + 1, j + 1


def _plain(lines: Sequence[str], index: int) -> Cell:
    return Cell(number=index + 1, pieces=((lines[index], False),))


# --- which line stands beside which ------------------------------------------------------------------


def _alike(before: Sequence[str], after: Sequence[str]) -> list[tuple[int, int]]:
    """The pairs that are alike, chosen so that their likeness is greatest in all."""
    if len(before) * len(after) > _MOST_PAIRS:
        return list(zip(range(len(before)), range(len(after)), strict=False))
    words = [[Counter(_words(line)) for line in lines] for lines in (before, after)]
    likeness = [[_likeness(one, other) for other in words[1]] for one in words[0]]
    best = [[0.0] * (len(after) + 1) for _ in range(len(before) + 1)]
    for i in reversed(range(len(before))):
        for j in reversed(range(len(after))):
            together = likeness[i][j] + best[i + 1][j + 1] if likeness[i][j] >= _ALIKE else 0.0
            best[i][j] = max(together, best[i + 1][j], best[i][j + 1])
    pairs: list[tuple[int, int]] = []
    i = j = 0
    while i < len(before) and j < len(after):
        if best[i][j] == best[i + 1][j]:
            i += 1
        elif best[i][j] == best[i][j + 1]:
            j += 1
        else:
            pairs.append((i, j))
            i, j = i + 1, j + 1
    return pairs


def _words(line: str) -> list[str]:
    return [word for word in _WORD.findall(line) if not word.isspace()][:_MOST_WORDS]


def _likeness(one: Counter[str], other: Counter[str]) -> float:
    """The share of words that both have, from 0 to 1."""
    total = one.total() + other.total()
    return 2 * (one & other).total() / total if total else 1.0


# --- which words differ ------------------------------------------------------------------------------


def _marked(before: str, after: str) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    old, new = _WORD.findall(before), _WORD.findall(after)
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    middle = old[head : len(old) - tail], new[head : len(new) - tail]
    if max(map(len, middle)) > _MOST_WORDS:
        codes: list[_Code] = [("replace", 0, len(middle[0]), 0, len(middle[1]))]
    else:
        codes = list(difflib.SequenceMatcher(None, *middle, autojunk=False).get_opcodes())
    sides: tuple[list[Piece], list[Piece]] = [("".join(old[:head]), False)], [("".join(new[:head]), False)]
    for tag, a, b, c, d in codes:
        sides[0].append(("".join(middle[0][a:b]), tag != "equal"))
        sides[1].append(("".join(middle[1][c:d]), tag != "equal"))
    sides[0].append(("".join(old[len(old) - tail :]), False))
    sides[1].append(("".join(new[len(new) - tail :]), False))
    return _joined(sides[0]), _joined(sides[1])


def _joined(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """The pieces with neighbours of one sort made one; blanks between two marked pieces are marked with them."""
    found: list[Piece] = []
    for text, marked in pieces:
        if not text:
            continue
        if marked and len(found) > 1 and found[-1][0].isspace() and found[-2][1]:
            found[-2:] = [(found[-2][0] + found[-1][0], True)]
        if found and found[-1][1] is marked:
            found[-1] = (found[-1][0] + text, marked)
        else:
            found.append((text, marked))
    return tuple(found)


# --- where in the document ---------------------------------------------------------------------------


def _place(before: Sequence[str], after: Sequence[str], group: Sequence[_Code]) -> tuple[str, ...]:
    """The fields around the first line of the hunk that differs."""
    tag, a, _, c, _ = next(code for code in group if code[0] != "equal")
    return _fields(before, a) if tag == "delete" else _fields(after, c)


def _fields(lines: Sequence[str], index: int) -> tuple[str, ...]:
    """The keys that the line is under; an item of a list is called by its first field, where that is its name.

    Works on the indentation of canonical YAML, where a list is level with its key.
    """
    found: list[str] = []
    indent = len(lines[index]) - len(lines[index].lstrip(" "))
    level = False  # whether a key of the same indentation is a parent: it is that of an item
    if lines[index].lstrip(" ").startswith("- "):
        level = True
    for number in reversed(range(index)):
        match = _KEY.match(lines[number])
        if match is None:
            continue
        at, dashes, key, value = len(match[1]), match[2], match[3], match[4]
        if dashes and at < indent:
            if at + len(dashes) < indent:
                found.append(key)
            found.append(value if key == "name" and value else f"[{_position(lines, number, at)}]")
            indent, level = at, True
        elif not dashes and (at < indent or (level and at == indent)):
            found.append(key)
            indent, level = at, False
        if indent == 0 and not level:
            break
    return tuple(reversed(found))


def _position(lines: Sequence[str], index: int, indent: int) -> int:
    """How many items of the same list come before this one."""
    count = 0
    for line in reversed(lines[:index]):
        if line.startswith(" " * indent + "- "):
            count += 1
        elif not line.startswith(" " * indent + " "):
            break
    return count
