"""Pure: breaks a line between words, so that it fits a terminal, whatever its colours and however wide its letters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

import click

#: Where one line goes on in the next, it begins so much further to the right.
_HANGING: Final = 2
#: A terminal narrower than this breaks lines itself.
_NARROWEST: Final = 20


def wrapped(line: str, columns: int) -> Iterator[str]:
    """The lines that it becomes, each at most so many columns wide unless one word is wider."""
    if columns < _NARROWEST or width(line) <= columns:
        yield line
        return
    plain = click.unstyle(line)
    indent = len(plain) - len(plain.lstrip(" "))
    current, used, begun = "", 0, False
    for gap, word in re.findall(r"( *)([^ ]+)", line):
        if begun and used + len(gap) + width(word) > columns:
            yield current
            current = " " * (indent + _HANGING)
            used, gap = len(current), ""  # noqa: PLW2901 - the break takes its place
        current, used = current + gap + word, used + len(gap) + width(word)
        begun = used > indent
    yield current


def width(text: str) -> int:
    """How many columns a terminal gives it: two to a wide letter, none to colours and to what joins a letter."""
    return sum(map(_columns, click.unstyle(text)))


def _columns(letter: str) -> int:
    if unicodedata.combining(letter) or unicodedata.category(letter) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(letter) in {"W", "F"} else 1
