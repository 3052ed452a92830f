"""What is to be told, as SARIF 2.1.0, which code scanning reads.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final
from urllib.parse import quote

from applier.report.alarms import Alarm, Severity, alarms
from applier.report.review import Context, Review
from renderer.errors import printable
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import digest

_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
#: What files are relative to: the root of the repository.
_ROOT: Final = "%SRCROOT%"


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
    results = []
    for alarm in told:
        about = digest([alarm.code, str(alarm.policy), alarm.path])
        seen[about] += 1
        results.append(_result(alarm, rules.index(alarm.code), f"{about}:{seen[about]}"))
    return results


def _result(alarm: Alarm, rule: int, fingerprint: str) -> JsonObject:
    location: JsonObject = {
        "physicalLocation": {
            "artifactLocation": {"uri": quote(alarm.file), "uriBaseId": _ROOT},
            "region": {"startLine": alarm.line},
        }
    }
    text = printable(alarm.text)
    if alarm.policy:
        text = f"{alarm.policy}: {text}"
        location["logicalLocations"] = [{"fullyQualifiedName": str(alarm.policy), "kind": "resource"}]
    return {
        "ruleId": alarm.code,
        "ruleIndex": rule,
        "level": alarm.severity.value,
        "message": {"text": text},
        "locations": [location],
        "partialFingerprints": {"policy/v1": fingerprint},
    }
