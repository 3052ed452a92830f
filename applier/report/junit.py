"""Every policy as a test case of JUnit's XML, which the test views of CI systems read."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final
from xml.etree import ElementTree as ET

from applier.change import Action, Change
from applier.impact.model import Effect, Impact
from applier.report import impact as words
from applier.report.alarms import NOT_EVALUATED, Alarm, Severity, alarms
from applier.report.review import Context, Review
from renderer.errors import printable
from renderer.manifest.identity import Identity

#: What XML 1.0 can't hold, however it is escaped.
_NO_XML: Final = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_GUARDS: Final = "guards"
_IMPACT: Final = "impact"
#: Resources that one case names.
_MOST_NAMED: Final = 1_000


def write(review: Review, context: Context) -> str:
    """A suite for each kind of policy, one for guards and one for the impact.

    A failure is what keeps all from being applied, or what would be newly blocked.
    """
    told: dict[Identity | None, list[Alarm]] = defaultdict(list)
    of_impact: list[Alarm] = []
    for alarm in alarms(review, context):
        (of_impact if alarm.effect or alarm.code == NOT_EVALUATED else told[alarm.policy]).append(alarm)
    suites = ET.Element("testsuites", name=f"insights-applier {'validate' if review.validation else 'plan'}")
    if told[None]:
        suite = _suite(suites, _GUARDS)
        for alarm in told[None]:
            case = ET.SubElement(suite, "testcase", classname=_GUARDS, name=alarm.code, time="0")
            _failure(case, [alarm])
    if review.impact:
        _of_impact(_suite(suites, _IMPACT), of_impact, review.impact)
    changes = {change.identity: change for change in review.plan.changes}
    for kind, identities in _by_kind(review).items():
        suite = _suite(suites, kind)
        for identity in identities:
            _case(suite, identity, told[identity], None if review.validation else changes[identity])
    for element in (*suites, suites):
        _count(element)
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"


def _by_kind(review: Review) -> Mapping[str, list[Identity]]:
    found: dict[str, list[Identity]] = defaultdict(list)
    policies: Iterable[Identity] = (
        review.validation.policies if review.validation else [change.identity for change in review.plan.changes]
    )
    for identity in sorted(policies):
        found[f"{identity.kind.group}/{identity.kind.name}"].append(identity)
    return found


def _suite(suites: ET.Element, name: str) -> ET.Element:
    return ET.SubElement(suites, "testsuite", name=name)


def _case(suite: ET.Element, identity: Identity, told: list[Alarm], change: Change | None) -> None:
    name = "/".join(part for part in (identity.namespace, identity.name) if part)
    case = ET.SubElement(suite, "testcase", classname=suite.get("name", ""), name=name, time="0")
    errors = [alarm for alarm in told if alarm.severity is Severity.ERROR]
    if errors:
        _failure(case, errors)
    elif change and change.action is Action.REFUSED:
        failure = ET.SubElement(case, "failure", type="refused", message=_xml(change.reason))
        failure.text = _xml(change.reason)
    others = [_xml(alarm.text) for alarm in told if alarm.severity is not Severity.ERROR]
    done = [change.action.value] if change and change.action is not Action.UNCHANGED else []
    if done or others:
        ET.SubElement(case, "system-out").text = "\n".join([*done, *others])


def _of_impact(suite: ET.Element, told: list[Alarm], impact: Impact) -> None:
    """A case that says how much was evaluated, one for each rule that changes something, and what was left out."""
    case = ET.SubElement(suite, "testcase", classname=_IMPACT, name="evaluated", time="0")
    ET.SubElement(case, "system-out").text = _xml(f"{words.headline(impact)}. {words.evaluated(impact)}")
    for alarm in told:
        if alarm.effect is None or alarm.policy is None:
            case = ET.SubElement(suite, "testcase", classname=_IMPACT, name="not evaluated", time="0")
            ET.SubElement(case, "skipped", message=_xml(alarm.text.partition("\n")[2]))
            continue
        name = f"{words.outcome(alarm.effect)}: {words.rule_of(alarm.policy, alarm.rule)}"
        case = ET.SubElement(suite, "testcase", classname=_IMPACT, name=_xml(name), time="0")
        if alarm.effect is Effect.BLOCKED:
            _failure(case, [replace(alarm, text=_all_named(alarm))])
        else:
            ET.SubElement(case, "system-out").text = _xml(_all_named(alarm))


def _all_named(alarm: Alarm) -> str:
    more = len(alarm.resources) - _MOST_NAMED
    return "\n".join(
        [
            alarm.message,
            *(f"  {resource.described}" for resource in alarm.resources[:_MOST_NAMED]),
            *([f"  and {more} more"] if more > 0 else []),
        ]
    )


def _failure(case: ET.Element, told: list[Alarm]) -> None:
    first = told[0]
    failure = ET.SubElement(case, "failure", type=first.code, message=_xml(first.text.partition("\n")[0]))
    failure.text = "\n".join(_xml(f"{alarm.file}:{alarm.line}: {alarm.text}") for alarm in told)


def _count(element: ET.Element) -> None:
    cases = list(element.iter("testcase"))
    element.set("tests", str(len(cases)))
    element.set("failures", str(sum(case.find("failure") is not None for case in cases)))
    element.set("errors", "0")
    element.set("skipped", str(sum(case.find("skipped") is not None for case in cases)))
    element.set("time", "0")


def _xml(text: str) -> str:
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", printable(text))
