"""A plan or a validation as one HTML file that opens anywhere: no network, and only its own style and script run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import jinja2

from applier import diff, risk
from applier.change import Action, Change, Plan, Rehearsed
from applier.report import impact as words
from applier.report import side_by_side, text
from applier.report.headline import SIGNS
from applier.report.review import Context, Review
from applier.report.side_by_side import Difference
from applier.risk import Level, Risk
from renderer.errors import printable
from renderer.manifest import effect, yamlio
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import Kind
from renderer.manifest.normalize import content

_TEMPLATES: Final = Path(__file__).parent / "templates"
#: So few changes are shown opened.
_MOST_OPENED: Final = 5
#: Policies that a row of the risks names.
_MOST_NAMED: Final = 6
#: Operations of a patch, and characters of all of them, that are shown.
_MOST_OPERATIONS: Final = 1_000
_MOST_PATCH: Final = 200_000
#: Workloads of the table of impacts.
_MOST_IMPACTED: Final = 500
#: Lines of all differences together; policies that come after them are named without theirs.
_MOST_LINES: Final = 60_000
#: As much of a digest and of a commit as people compare.
_DIGEST_SHOWN: Final = 12
#: What a code of a risk says.
_WORDS: Final = {risk.code(what): what.value for what in effect.What}
_UNPRINTABLE: Final = re.compile(r"[^\n\x20-\x7e]")


@dataclass(frozen=True, slots=True, kw_only=True)
class _RiskRow:
    """One thing that changes do, and the policies whose changes do it."""

    level: Level
    what: str
    policies: Sequence[Identity]
    more: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    """One policy, as the page shows it; `whole` is its text where it comes or goes as a whole."""

    identity: Identity
    action: Action
    level: Level
    headline: str
    risks: Sequence[Risk]
    remarks: Sequence[str]
    difference: Difference | None
    whole: str
    whole_left_out: int
    removed: int
    added: int
    patch: str
    operations: int
    unshown: bool = False


def write(review: Review, context: Context) -> str:
    """The page; where only ASCII can be written, everything else is written as references to characters."""
    shown = _page(review, context)
    return shown.encode("ascii", "xmlcharrefreplace").decode() if context.ascii else shown


def _page(review: Review, context: Context) -> str:
    plan = review.plan
    changes = [] if review.validation else list(risk.shown(plan))
    items = list(_bounded(_item(change, plan, diffs=context.diffs) for change in changes))
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            review=review,
            validation=review.validation,
            unchecked=_unchecked(review),
            headline=_headline(review),
            facts=_facts(review),
            security=_security_policy(style, script),
            style=style,
            script=script,
            risk_rows=list(_risk_rows([one for item in items for one in item.risks])),
            impact=review.impact,
            words=words,
            most_impacted=_MOST_IMPACTED,
            items=items,
            opened=len(items) <= _MOST_OPENED,
            diffs=context.diffs,
            actions=_counted([item.action for item in items], list(Action)),
            levels=_counted([item.level for item in items], list(Level)),
            kinds=sorted({item.identity.kind.name for item in items}),
            signs=SIGNS,
        )
    )


def _headline(review: Review) -> str:
    found = review.validation
    return f"{found.valid} of {len(found.policies)} policies are valid" if found else text.counts(review.plan)


def _unchecked(review: Review) -> list[Identity]:
    found = review.validation
    return sorted(found.unchecked - found.invalid) if found else []


def _facts(review: Review) -> Mapping[str, str]:
    basis, snapshot = review.basis, review.basis.snapshot
    facts = {
        "Organization": snapshot.organization,
        "Cluster": snapshot.cluster,
        "Policies": str(len(snapshot.policies)),
        "Commit": (basis.commit or "")[:_DIGEST_SHOWN],
        "Digest": snapshot.digest[:_DIGEST_SHOWN],
    }
    return {name: value for name, value in facts.items() if value}


def _counted(found: Sequence[Any], order: Sequence[Any]) -> list[tuple[Any, int]]:
    counts = Counter(found)
    return [(value, counts[value]) for value in order if value in counts]


def _risk_rows(risks: Sequence[Risk]) -> Iterator[_RiskRow]:
    """What the changes do, worst first, each with the policies that do it."""
    found: dict[tuple[Level, str], dict[Identity, None]] = {}
    for one in risks:
        found.setdefault((one.level, one.code), {})[one.policy] = None
    order = list(Level)
    for (level, code), policies in sorted(found.items(), key=lambda entry: order.index(entry[0][0])):
        yield _RiskRow(
            level=level,
            what=_capital(_WORDS.get(code) or code.replace("-", " ")),
            policies=list(policies)[:_MOST_NAMED],
            more=max(0, len(policies) - _MOST_NAMED),
        )


def _bounded(items: Iterator[_Item]) -> Iterator[_Item]:
    """The items, without the differences of those for which the page has no room."""
    room = _MOST_LINES
    for item in items:
        rows = sum(len(hunk.rows) for hunk in item.difference.hunks) if item.difference else item.whole.count("\n")
        room -= rows
        yield item if room >= 0 else replace(item, difference=None, whole="", unshown=True)


# --- one policy --------------------------------------------------------------------------------------


def _item(change: Change, plan: Plan, *, diffs: bool) -> _Item:
    kind = change.identity.kind
    risks = risk.of_change(change, plan)
    before, after = _yaml(change.before, kind), _yaml(change.after, kind)
    difference = side_by_side.compare(before, after) if before and after else None
    whole = [] if difference or not diffs else before or after
    operations = diff.with_tests(change.before, change.patch, kind) if change.before and change.patch and diffs else []
    return _Item(
        identity=change.identity,
        action=change.action,
        level=risk.level(risks),
        headline=_sentence(change, risks),
        risks=risks,
        remarks=list(_remarks(change)),
        difference=difference if diffs else None,
        whole="\n".join(whole[: side_by_side.MOST_ROWS]),
        whole_left_out=max(0, len(whole) - side_by_side.MOST_ROWS),
        removed=difference.removed if difference else len(before),
        added=difference.added if difference else len(after),
        patch=_patch(operations),
        operations=len(operations),
    )


def _sentence(change: Change, risks: Sequence[Risk]) -> str:
    """The one thing to know of it: why it is refused, else the worst that it does."""
    if change.action is Action.REFUSED and change.reason:
        return f"{_capital(change.reason)}."
    if not risks:
        return "Nothing changes in what it enforces, matches or does."
    more = f", and {len(risks) - 1} more" if len(risks) > 1 else ""
    return f"{_capital(risks[0].sentence)}{more}."


def _remarks(change: Change) -> Iterator[str]:
    if change.reason and change.action is not Action.REFUSED:
        yield f"{_capital(change.reason)}."
    if change.drifted_by and change.action is Action.UPDATE:
        yield f"Its spec was also written by {', '.join(change.drifted_by)}."
    if change.rehearsed is Rehearsed.NOT_ASKED and change.action is not Action.REFUSED:
        yield "Not dry-run: this account may not write it, so the server's defaults may show as changes."
    if change.rehearsed is Rehearsed.REFUSED:
        yield "The server refuses it: see the errors."


def _capital(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}"


def _yaml(body: JsonObject | None, kind: Kind) -> list[str]:
    return yamlio.dump(content(body, kind)).splitlines() if body is not None else []


def _patch(operations: Sequence[JsonObject]) -> str:
    """The operations, one a line, as JSON that can be copied; "" when they are too many to be shown."""
    if not operations or len(operations) > _MOST_OPERATIONS:
        return ""
    lines = ",\n".join(f"  {json.dumps(operation, ensure_ascii=False)}" for operation in operations)
    return f"[\n{_UNPRINTABLE.sub(_json_escaped, lines)}\n]" if len(lines) <= _MOST_PATCH else ""


def _json_escaped(match: re.Match[str]) -> str:
    sign = match[0]
    return sign if sign.isprintable() else json.dumps(sign)[1:-1]


# --- the page ----------------------------------------------------------------------------------------


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["shown"] = _printable
    environment.filters["capital"] = _capital
    environment.filters["anchor"] = lambda identity: quote(str(identity), safe="/")
    return environment


def _printable(value: Any) -> str:
    """What policies and servers say, with nothing in it that turns text around or hides."""
    lines = str(value).split("\n")
    return "\n".join(line if line.isprintable() else printable(line) for line in lines)


@cache
def _asset(name: str) -> str:
    """The style or the script; both are ours, in ASCII, and hold nothing that would end their element."""
    return (_TEMPLATES / name).read_text(encoding="ascii").strip()


def _security_policy(style: str, script: str) -> str:
    """The page's Content-Security-Policy: its own style and script run, by their digests, and nothing is fetched."""
    return "; ".join(
        [
            "default-src 'none'",
            f"style-src '{_digest(style)}'",
            f"script-src '{_digest(script)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )


def _digest(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"
