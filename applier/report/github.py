"""What is to be told, as workflow commands of GitHub Actions, which annotate the files of a pull request.

GitHub shows few annotations of a step (ten of each severity): there is one for each policy, and the worst are first.
https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final

from applier.report.alarms import Alarm, Severity, alarms
from applier.report.headline import headline
from applier.report.review import Context, Review
from renderer.errors import printable

_COMMANDS: Final = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}


def write(review: Review, context: Context) -> str:
    """The line that counts, then a command for each policy and each refusal."""
    told = list(alarms(review, context))
    groups: dict[tuple[object, Severity], list[Alarm]] = {}
    for number, alarm in enumerate(told):
        groups.setdefault((alarm.policy or number, alarm.severity), []).append(alarm)
    return "".join(f"{line}\n" for line in [_command("notice", headline(review)), *map(_annotation, groups.values())])


def _annotation(same: Sequence[Alarm]) -> str:
    """One command for what is told of one policy with one severity; its place is the first's."""
    first = same[0]
    codes = ", ".join(code for code, _ in groupby(alarm.code for alarm in same))
    title = f"{first.policy}: {codes}" if first.policy else codes
    message = "\n".join(dict.fromkeys(alarm.text for alarm in same))
    return _command(_COMMANDS[first.severity], message, file=first.file, line=str(first.line), title=title)


def _command(name: str, message: str, **properties: str) -> str:
    given = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{name}{f' {given}' if given else ''}::{_data(printable(message))}"


def _data(value: str) -> str:
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(printable(value)).replace(":", "%3A").replace(",", "%2C")
