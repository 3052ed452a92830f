"""What makes a run stop, and how often one has to say so."""

from __future__ import annotations

import os
import signal

import pytest
from pytest_mock import MockerFixture

from applier.stop import Stop, interruptible, on_signals
from renderer.errors import ExitCode, Terminated


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, ExitCode.INTERRUPTED),
        (signal.SIGTERM, ExitCode.TERMINATED),
        (signal.SIGHUP, ExitCode.TERMINATED),
    ],
)
def test_the_first_signal_asks_and_its_echo_changes_nothing(number: signal.Signals, code: ExitCode) -> None:
    stop = Stop()
    with on_signals(stop):
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
    assert (stop.is_set(), stop.code, stop.signalled) == (True, code, True)


def test_who_insists_after_a_second_ends_it(mocker: MockerFixture) -> None:
    stop = Stop()
    clock = mocker.patch("applier.stop.time.monotonic", return_value=100.0)
    with on_signals(stop):
        os.kill(os.getpid(), signal.SIGTERM)
        clock.return_value = 101.5
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_work_ends_when_the_lease_was_not_renewed_in_time() -> None:
    stop = Stop()
    stop.work_until(stop.clock() + 60)
    assert not stop.is_set()
    stop.work_until(stop.clock() - 1)
    assert stop.is_set()
    assert "could not be renewed" in stop.reason


def test_a_sleep_ends_at_its_moment_or_when_the_work_must_stop() -> None:
    stop = Stop()
    assert stop.sleep_until(stop.clock() + 0.2)
    stop.set("enough")
    assert not stop.sleep_until(stop.clock() + 600)


def test_what_is_lost_is_lost_however_long_the_lease_was_good_for() -> None:
    stop = Stop()
    stop.work_until(stop.clock() + 600)
    assert stop.may_write()
    stop.lose("another run took the Lease")
    assert (stop.may_write(), stop.is_set(), stop.reason) == (False, True, "another run took the Lease")


def test_the_first_reason_stands() -> None:
    stop = Stop()
    stop.set("one")
    stop.set("two", ExitCode.TERMINATED)
    assert (stop.reason, stop.code) == ("one", ExitCode.ROLLED_BACK)


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_question_ends_with_the_first_signal(number: signal.Signals, raised: type[BaseException]) -> None:
    stop = Stop()
    with on_signals(stop):
        with pytest.raises(raised) as ended, interruptible():
            os.kill(os.getpid(), number)
        assert ended.type is raised
        assert not stop.is_set()
        os.kill(os.getpid(), number)
    assert stop.is_set()
