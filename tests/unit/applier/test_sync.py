"""When a sync that stays ends."""

from __future__ import annotations

import pytest
from pytest_mock import MockerFixture

from applier import sync
from renderer.errors import ApplyFailed, ExitCode


@pytest.mark.parametrize("code", [ExitCode.OK, ExitCode.TERMINATED, ExitCode.ROLLBACK_INCOMPLETE])
def test_a_signal_ends_it_however_the_sync_that_it_met_ended(mocker: MockerFixture, code: ExitCode) -> None:
    run = mocker.patch("applier.sync._Run").return_value
    run.run.return_value, run.signalled = code, True
    sleep = mocker.patch("applier.sync.time.sleep")
    assert sync.watch_interval(mocker.sentinel.settings, 60) is code
    sleep.assert_not_called()


def test_a_failed_sync_is_tried_again_until_a_signal_finds_it_waiting(mocker: MockerFixture) -> None:
    run = mocker.patch("applier.sync._Run").return_value
    run.run.return_value, run.signalled = ExitCode.UNAVAILABLE, False
    mocker.patch("applier.sync.time.sleep", side_effect=[None, None, KeyboardInterrupt])
    assert sync.watch_interval(mocker.sentinel.settings, 60) is ExitCode.OK
    assert run.run.call_count == 3


def test_a_second_signal_in_the_undo_ends_it_too(mocker: MockerFixture) -> None:
    failure = ApplyFailed(ExitCode.ROLLBACK_INCOMPLETE, "A second signal ended the run.")
    failure.__cause__ = KeyboardInterrupt()
    mocker.patch("applier.sync._Run._synced", side_effect=failure)
    sleep = mocker.patch("applier.sync.time.sleep")
    assert sync.watch_interval(mocker.Mock(), 60) is ExitCode.ROLLBACK_INCOMPLETE
    sleep.assert_not_called()
