"""Writes a JSON value as YAML in one canonical form: the same value gives the same bytes on every machine.

libyaml's emitter is not used, because it puts any text with a blank at the end of a line into one quoted
line, which is every seventh text of several lines in real policies, and no one can review that.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from yaml.nodes import ScalarNode
from yaml.resolver import Resolver

from renderer.manifest.jsontypes import Json
from renderer.manifest.yamlio import scalars

#: Keys that people look for first, in this order at every level; all others follow by the alphabet.
_LEADING: Final = (
    *("apiVersion", "kind", "metadata", "name", "namespace", "labels", "annotations", "spec"),
    *("match", "exclude", "context", "preconditions"),
)
_RANK: Final = {key: rank for rank, key in enumerate(_LEADING)}

#: Not plain at the start, though `-` may begin a word (`-c`, `--flag`).
_INDICATORS: Final = frozenset(" -?:,[]{}#&*!|>'\"%@`")
_FLAG: Final = re.compile(r"--?[A-Za-z0-9]")
#: Written as an escape always: what YAML takes for a line break, doesn't allow, or what turns text around.
_ESCAPED: Final = re.compile(
    "[^\n\t\x20-\x7e\xa0-\u061b\u061d-\u200d\u2010-\u2027\u202f-\u2065\u206a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_SHORT_ESCAPES: Final = {"\\": r"\\", '"': r"\"", "\n": r"\n", "\t": r"\t", "\r": r"\r"}
#: Both readers stop looking for the `:` after 1024 characters.
_LONGEST_SIMPLE_KEY: Final = 1000
_STRING: Final = "tag:yaml.org,2002:str"
_yaml_1_1_tag: Callable[[type[ScalarNode], str, tuple[bool, bool]], str] = Resolver().resolve


def dump(value: Json) -> str:
    """One document without `---`; raises ValueError for what Kubernetes could not read back as it is.

    Indented by two with lists level with their key, as kubectl prints; text of several lines as a block;
    quotes only where a YAML 1.1 or 1.2 reader or Kubernetes would take the text for something else.
    """
    lines: list[str] = []
    if _has_items(value):
        _collection(lines, value, 0)
    else:
        lines.append(_scalar(value))
    return "\n".join(lines) + "\n"


def _has_items(value: Json) -> bool:
    return isinstance(value, dict | list) and bool(value)


def _collection(lines: list[str], value: Json, indent: int) -> None:
    pad = " " * indent
    if isinstance(value, dict):
        for key in sorted(value, key=_order):
            nested = value[key]
            head = _head(pad, key)
            if _has_items(nested):
                lines.append(head)
                _collection(lines, nested, indent if isinstance(nested, list) else indent + 2)
            else:
                lines.append(f"{head} {_scalar(nested, indent + 2)}")
        return
    for item in value:
        if _has_items(item):
            first = len(lines)
            _collection(lines, item, indent + 2)
            lines[first] = f"{pad}- {lines[first][indent + 2 :]}"
        else:
            lines.append(f"{pad}- {_scalar(item, indent + 2)}")


def _order(key: str) -> tuple[int, str]:
    return _RANK.get(key, len(_RANK)), key


def _head(pad: str, key: str) -> str:
    written = _key(key)
    return f"{pad}{written}:" if len(written) <= _LONGEST_SIMPLE_KEY else f"{pad}? {written}\n{pad}:"


@lru_cache(maxsize=4096)
def _key(key: str) -> str:
    return _inline(key)


def _scalar(value: Json, indent: int = 0) -> str:
    if isinstance(value, str):
        return _block(value, indent) if indent and _fits_block(value) else _inline(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, dict | list):
        return "{}" if isinstance(value, dict) else "[]"
    raise TypeError(f"not a JSON value: {type(value).__name__}")


def _number(value: float) -> str:
    as_read = scalars.to_json(value)
    if isinstance(as_read, int):
        return str(as_read)
    mantissa, exponent, power = repr(as_read).partition("e")
    # Without the point a YAML 1.1 reader takes 1e+21 for text.
    return f"{mantissa if '.' in mantissa else f'{mantissa}.0'}{exponent}{power}"


def _fits_block(text: str) -> bool:
    """Several lines that a `|` block gives back, also to those whose editor cuts blank lines at the end."""
    return "\n" in text and not text.isspace() and not text.endswith("\n\n") and not _ESCAPED.search(text)


def _block(text: str, indent: int) -> str:
    pad = " " * indent
    # Where the first line starts with a blank, a reader can't see where the indentation ends.
    indicator = "2" if text.lstrip("\n")[0] in " \t" else ""
    chomping = "" if text.endswith("\n") else "-"
    body = "\n".join(pad + line if line else "" for line in text.removesuffix("\n").split("\n"))
    return f"|{indicator}{chomping}\n{body}"


def _inline(text: str) -> str:
    """The text on one line: plain, else in the quotes that need fewer escapes."""
    if _is_plain(text):
        return text
    if _ESCAPED.search(text) or "\n" in text or "\t" in text:
        return f'"{"".join(map(_escape, text))}"'
    if '"' in text or "\\" in text:
        return "'" + text.replace("'", "''") + "'"
    return f'"{text}"'


def _is_plain(text: str) -> bool:
    if not text or (text[0] in _INDICATORS and not _FLAG.match(text)) or text.startswith(("---", "...")):
        return False
    if text[-1] in " :" or ": " in text or " #" in text or "\n" in text or "\t" in text or _ESCAPED.search(text):
        return False
    return _is_text_everywhere(text)


def _is_text_everywhere(text: str) -> bool:
    """Whether Kubernetes and a reader of YAML 1.1 take the plain text for a string (1.2 knows fewer types)."""
    if text in scalars.WORDS or scalars.looks_like_number(text):
        return False
    return _yaml_1_1_tag(ScalarNode, text, (True, False)) == _STRING


def _escape(character: str) -> str:
    if short := _SHORT_ESCAPES.get(character):
        return short
    if "\ud800" <= character <= "\udfff":
        raise scalars.ScalarError("half of a surrogate pair can't be written as text")
    return f"\\u{ord(character):04x}" if _ESCAPED.match(character) else character
