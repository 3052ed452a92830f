"""How commands print: results go to stdout, and what a program can't hold to stderr."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from typing import Any

import click

from renderer.status_line import STATUS


def echo(lines: Iterable[str], *, err: bool = False) -> None:
    """Print the lines just as they are, coloured only where --color and the terminal allow it."""
    for line in lines:
        click.echo(line, err=err)


def tell(lines: Iterable[str], *, err: bool = False) -> None:
    """Print lines for people: on a terminal they are broken between words; those of a difference are left whole."""
    from applier.report import wrap
    from applier.report.text import DIFF_INDENT

    stream = sys.stderr if err else sys.stdout
    if not stream.isatty():
        echo(lines, err=err)
        return
    columns = shutil.get_terminal_size().columns
    for line in lines:
        echo([line] if click.unstyle(line).startswith(DIFF_INDENT) else wrap.wrapped(line, columns), err=err)


def show(text: str) -> None:
    """Print the text as it is, to its last character."""
    click.echo(text, nl=False)


def show_progress() -> None:
    """Say on standard error how far long work has come, where people see it."""
    STATUS.turn_on(sys.stderr, os.environ)


def encodes_all() -> bool:
    """Whether standard output can hold every character."""
    return sys.stdout.encoding.lower().replace("-", "") == "utf8"


def line_text(line: dict[str, Any]) -> str:
    """The line that ends a run: a sentence on a terminal, JSON elsewhere."""
    import json

    from renderer import logs

    if sys.stdout.isatty():
        return readable(line)
    return json.dumps({**line, "run_id": logs.run_id()}, ensure_ascii=False, separators=(",", ":"))


def json_text(document: dict[str, Any]) -> str:
    """The document as JSON that people can read, too; what standard output can't encode is escaped as JSON has it."""
    import json

    return json.dumps(document, ensure_ascii=not encodes_all(), indent=2)


def readable(line: dict[str, Any]) -> str:
    """The line that ends a run, as a sentence."""
    text = f"{line['msg']} in {line['duration']}: {line['summary']}"
    return text if line["success"] else f"{text}\n{line.get('error', '')}"
