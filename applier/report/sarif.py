"""What is to be told, as SARIF 2.1.0, which code scanning reads.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Final
from urllib.parse import quote

from applier.impact.model import Resource
from applier.report import impact as words
from applier.report.alarms import Alarm, Severity, alarms
from applier.report.review import Context, Review
from renderer.errors import printable
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import digest

_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
#: What files are relative to: the root of the repository.
_ROOT: Final = "%SRCROOT%"
#: Resources of an impact that get a result of their own: so many results GitHub shows of a run.
_MOST_RESOURCES: Final = 5_000


def write(review: Review, context: Context) -> str:
    """One run with a result for each thing to be told, the worst first."""
    told = list(alarms(review, context))
    rules = sorted({alarm.code for alarm in told})
    command = "validate" if review.validation else "plan"
    log = {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "insights-applier",
                        "version": version("on-demand-job-runner"),
                        "rules": [_rule(code, told) for code in rules],
                    }
                },
                "automationDetails": {"id": _automation(command, review)},
                "columnKind": "unicodeCodePoints",
                "results": _results(told, rules),
            }
        ],
    }
    return json.dumps(log, ensure_ascii=context.ascii, indent=2) + "\n"


def _automation(command: str, review: Review) -> str:
    """Names the category, so that the results for one cluster do not replace another's."""
    snapshot = review.basis.snapshot
    return f"insights-applier/{command}/{snapshot.organization}/{snapshot.cluster}/"


def _rule(code: str, told: Sequence[Alarm]) -> JsonObject:
    severity = min((alarm.severity for alarm in told if alarm.code == code), key=list(Severity).index)
    title = code.replace("-", " ")
    return {
        "id": code,
        "shortDescription": {"text": f"{title[0].upper()}{title[1:]}"},
        "defaultConfiguration": {"level": severity.value},
    }


def _results(told: Sequence[Alarm], rules: Sequence[str]) -> list[JsonObject]:
    seen: Counter[str] = Counter()
    numbers = {code: number for number, code in enumerate(rules)}
    room, results = _MOST_RESOURCES, []
    for alarm in told:
        named = alarm.resources[: max(0, room)]
        room -= len(named)
        for text, resource in _said(alarm, named):
            about = digest([alarm.code, str(alarm.policy), alarm.path, *([resource.full_name] if resource else [])])
            seen[about] += 1
            results.append(_result(alarm, text, resource, numbers[alarm.code], f"{about}:{seen[about]}"))
    return results


def _said(alarm: Alarm, named: Sequence[Resource]) -> Iterator[tuple[str, Resource | None]]:
    """The texts of the results of an alarm: of each resource that is named with the rule's message, else its own."""
    for resource in named:
        yield words.of_one(resource, alarm.rule, alarm.message, alarm.effect), resource
    left = alarm.resources[len(named) :]
    if left and named:
        yield f"And {len(left)} more: {alarm.message}", None
    elif left or not named:
        yield alarm.text, None


def _result(alarm: Alarm, text: str, resource: Resource | None, rule: int, fingerprint: str) -> JsonObject:
    location: JsonObject = {
        "physicalLocation": {
            "artifactLocation": {"uri": quote(alarm.file), "uriBaseId": _ROOT},
            "region": {"startLine": alarm.line},
        }
    }
    named = [str(alarm.policy)] if alarm.policy else []
    text = ": ".join([*named, printable(text)])
    if resource:
        named.append(resource.full_name)
    if named:
        location["logicalLocations"] = [
            {"fullyQualifiedName": printable(" ".join(name.split())), "kind": "resource"} for name in named
        ]
    return {
        "ruleId": alarm.code,
        "ruleIndex": rule,
        "level": alarm.severity.value,
        "message": {"text": text},
        "locations": [location],
        "partialFingerprints": {"policy/v1": fingerprint},
    }
