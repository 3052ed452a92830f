"""What probes are told."""

from __future__ import annotations

import pytest

from applier.telemetry.health import UNREACHED_TURNS, Health


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock=clock, within=30)


def test_it_is_ready_from_the_first_turn_that_reached_all(health: Health) -> None:
    assert health.unready()
    health.turned(reached=False)
    assert health.unready()
    health.turned(reached=True)
    assert health.unready() == ""


def test_it_is_unready_after_several_turns_in_a_row_that_did_not_and_ready_again_after_one_that_did(
    health: Health,
) -> None:
    health.turned(reached=True)
    for _ in range(UNREACHED_TURNS - 1):
        health.turned(reached=False)
        assert health.unready() == ""
    health.turned(reached=False)
    assert health.unready()
    health.turned(reached=True)
    assert health.unready() == ""


def test_it_is_stuck_when_no_word_came_in_time(health: Health, clock: Clock) -> None:
    health.turned(reached=True)
    clock.now += 30
    assert health.stuck() == ""
    clock.now += 5
    assert "5 s longer" in health.stuck()
    assert health.unready() == health.stuck()
    health.expect(10)
    assert (health.stuck(), health.unready()) == ("", "")
