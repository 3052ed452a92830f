"""The line that tells of progress: where it is shown, and that it never stands in what others print."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import pytest

from renderer.commandline import Output
from renderer.status_line import CLEAR, STATUS, StatusLine


class Terminal(io.StringIO):
    """Keeps what it is given; people are reading."""

    def isatty(self) -> bool:
        return True


def on_screen(text: str) -> list[str]:
    """The lines that stand there in the end."""
    lines = [""]
    for part in text.replace(CLEAR, "\r").splitlines(keepends=True):
        if part.endswith("\r"):
            lines[-1] = ""
        elif part.endswith("\n"):
            lines[-1] += part.rstrip("\n")
            lines.append("")
        else:
            lines[-1] += part
    return lines


def line(
    environment: dict[str, str] | None = None, stream: io.StringIO | None = None
) -> tuple[StatusLine, io.StringIO]:
    found, seen = StatusLine(), Terminal() if stream is None else stream
    found.turn_on(seen, environment or {})
    return found, seen


def test_each_step_takes_the_place_of_the_one_before_and_nothing_is_left() -> None:
    status, seen = line()
    assert list(status.counting("ab", "Asking the server", 2)) == ["a", "b"]
    assert seen.getvalue() == "".join(f"{CLEAR}Asking the server {number}/2" for number in range(3)) + CLEAR


@pytest.mark.parametrize(
    ("environment", "stream"), [({"CI": "true"}, Terminal()), ({"TERM": "dumb"}, Terminal()), ({}, io.StringIO())]
)
def test_none_is_shown_where_nobody_sees_it(environment: dict[str, str], stream: io.StringIO) -> None:
    status, seen = line(environment, stream)
    with status.saying("Validating 5 policies …"):
        status.show("Writing 1/2")
    assert seen.getvalue() == ""


def test_what_fails_takes_it_away_too() -> None:
    status, seen = line()
    with pytest.raises(ValueError, match="no"), status.saying("Writing 0/2"):
        raise ValueError("no")
    assert seen.getvalue().endswith(CLEAR)


def test_it_gives_way_to_whoever_prints_also_from_other_threads() -> None:
    terminal = Terminal()
    stderr = Output(terminal)
    STATUS.turn_on(stderr, {})  # type: ignore[arg-type]  # an Output stands in for the stream, as in the programs
    try:
        with ThreadPoolExecutor(4) as pool:
            for number in range(200):
                pool.submit(STATUS.show, f"Writing {number}/200")
                if number % 10 == 0:
                    # In two parts, as the log does.
                    print(f"line {number}", file=stderr)
    finally:
        STATUS.turn_off()
    assert on_screen(terminal.getvalue()) == [f"line {number}" for number in range(0, 200, 10)] + [""]


def test_nothing_is_said_in_the_middle_of_a_line() -> None:
    terminal = Terminal()
    stderr = Output(terminal)
    STATUS.turn_on(stderr, {})  # type: ignore[arg-type]  # as above
    try:
        stderr.write("half a ")
        STATUS.show("Writing 1/2")
        stderr.write("line\n")
    finally:
        STATUS.turn_off()
    assert terminal.getvalue() == "half a line\n"
