"""Durations: what is accepted, what is refused and how, and how they are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderer.durations import format_duration, parse_duration
from renderer.errors import ConfigurationError, ExitCode


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30m", 1800),
        ("15m", 900),
        ("1h30m", 5400),
        ("90s", 90),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("1.s", 1),
        ("250ms", 0.25),
        ("10us", 0.00001),
        ("10µs", 0.00001),
        ("1h1m1s1ms", 3661.001),
        ("0", 0),
        ("0s", 0),
        (" 15m\n", 900),
    ],
)
def test_reads_what_go_reads(text: str, seconds: float) -> None:
    assert parse_duration(text, setting="LOCK_TIMEOUT") == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "15",
        "0.5",
        "-5m",
        "+5m",
        "1h, 30m",
        "1h 30m",
        "1hxx30m",
        "5 m",
        "1d",
        "1w",
        "1mm",
        "1y",
        "1M",
        "m",
        "1.2.3s",
        "..s",
        "nan",
        "inf",
        "\u0661s",
        "99999999999999999h",
        "9" * 400 + "h",
        "soon",
    ],
)
def test_refuses_the_rest_and_says_what_is_accepted(text: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse_duration(text, setting="LOCK_TIMEOUT (--lock-timeout)")
    assert raised.value.code is ExitCode.CONFIGURATION
    message = str(raised.value)
    assert message.startswith(f"LOCK_TIMEOUT (--lock-timeout): {text[:40]!r}"[:-1])
    assert "90s, 15m or 1h30m" in message
    assert len(message) < 250


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (5.2, "5.2s"),
        (5.249, "5.2s"),
        (0, "0s"),
        (0.0004, "0s"),
        (0.35, "350ms"),
        (0.9996, "1s"),
        (1, "1s"),
        (59.96, "1m"),
        (65.2, "1m5.2s"),
        (3600, "1h"),
        (3725.5, "1h2m5.5s"),
    ],
)
def test_writes_durations_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(min_value=0, max_value=10**7))
def test_what_is_written_reads_as_nearly_the_same(seconds: float) -> None:
    assert parse_duration(format_duration(seconds), setting="x") == pytest.approx(seconds, abs=0.0501)
