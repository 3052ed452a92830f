"""What the server says in Warning headers: read, heard by those who listen, logged once where nobody does."""

from __future__ import annotations

import threading

import pytest

from applier.cluster import hearing


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('299 - "old"', ["old"]),
        ('299 - "a \\"b\\" c", 299 kube "d"', ['a "b" c', "d"]),
        ('299 - "red \x1b[31m text\x07"', ["red  [31m text "]),
        ("299 - unquoted", []),
        ("", []),
    ],
)
def test_the_texts_of_a_header(header: str, expected: list[str]) -> None:
    assert list(hearing.texts([header])) == expected


def test_a_text_is_cut_where_it_gets_too_long() -> None:
    assert [len(text) for text in hearing.texts([f'299 - "{"x" * 5000}"'])] == [1000]


def test_who_listens_hears_and_the_log_stays_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    warnings = hearing.Warnings()
    with hearing.listen() as heard:
        warnings.take(['299 - "old"'])
        warnings.take(['299 - "old"'])
    warnings.take(['299 - "old"'])
    shown = capsys.readouterr()
    assert heard == ["old", "old"]
    assert "old" not in shown.out + shown.err


def test_what_nobody_listens_to_is_logged_once(capsys: pytest.CaptureFixture[str]) -> None:
    warnings = hearing.Warnings()
    for _ in range(3):
        warnings.take(['299 - "old"'])
    shown = capsys.readouterr()
    assert (shown.out + shown.err).count("The server warns") == 1


def test_another_thread_is_not_overheard() -> None:
    warnings = hearing.Warnings()
    with hearing.listen() as heard:
        thread = threading.Thread(target=warnings.take, args=(['299 - "elsewhere"'],))
        thread.start()
        thread.join()
    assert heard == []
