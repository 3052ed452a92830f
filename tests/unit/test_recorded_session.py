"""The README's recorded session: nothing of a machine is in it, and it fetches nothing."""

from __future__ import annotations

from ci import record

SAID = "\x1b[1m1 to update on https://127.0.0.1:45671\x1b[0m\nApply completed in 1.23s: Applied 0, Updated 1\n"


def test_what_no_two_runs_share_is_left_out() -> None:
    other = SAID.replace("45671", "40001").replace("1.23s", "950ms")
    assert record.cleaned(SAID) == record.cleaned(other)
    assert "https://cluster.example:6443" in record.cleaned(SAID)
    assert "Apply completed: Applied 0" in record.cleaned(SAID)


def test_the_same_session_is_drawn_the_same_and_fetches_nothing() -> None:
    svg = record.drawn(record.cleaned(SAID))
    assert svg == record.drawn(record.cleaned(SAID))
    assert ("url(http" in svg, "@font-face" in svg, "45671" in svg) == (False, False, False)


def test_the_session_that_is_shown_is_small_and_of_no_machine() -> None:
    svg = record.SESSION.read_text(encoding="utf-8")
    assert len(svg.encode()) < 150_000
    assert [word for word in ("127.0.0.1", "/tmp", "/work", "/home", "url(http") if word in svg] == []
