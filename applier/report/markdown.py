"""A plan, or what validation found, as Markdown for a comment on a pull request: it fits, the most important first.

What does not fit is folded, then left out and counted. Policies' and servers' own words can neither leave their place
nor call anybody.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from applier import risk
from applier.change import Change, Refused, Rehearsed
from applier.impact.model import Effect, Impact
from applier.report import difference
from applier.report import impact as said
from applier.report.headline import SIGNS, headline
from applier.report.review import Context, Review
from applier.risk import Level, Risk
from applier.verdict import Finding
from renderer.errors import printable

#: What GitHub takes as one comment; GitLab takes more.
LIMIT: Final = 65_536
#: Kept free for the line that says what was left out.
_RESERVED: Final = 600
_MOST_FINDINGS: Final = 50
_MOST_POLICIES: Final = 50
_MOST_SUBJECTS: Final = 20
_LONGEST_DIFF: Final = 12_000
_LONGEST_WORDS: Final = 1_000
#: Of an impact: a table for each effect.
_LONGEST_TABLE: Final = 8_000
_MARKS: Final = {Level.WEAKENS: "🔴", Level.DELETES: "🟠", Level.DENIES: "🟡", Level.OTHER: "⚪", Level.NONE: "⚪"}
_IMPACT_MARKS: Final = {Effect.BLOCKED: "⛔", Effect.REPORTED: "📋", Effect.LET_THROUGH: "🔓"}
_MARKDOWN: Final = re.compile(r"[\\`*_{}\[\]#|~]")
#: What begins a list, a quotation or a rule where a line begins with it.
_BEGINS: Final = re.compile(r"[-+=>]|\d+[.)]")
#: What would call somebody, or point somewhere, even where it is escaped.
_CALLS: Final = re.compile(r"[@#]|:(?=//)|\bwww(?=\.)|\bGH(?=-)")
_NOTHING: Final = "&#8203;"
_TICKS: Final = re.compile(r"`+")


def write(review: Review, context: Context) -> str:
    """The comment: its first line tells which one it is, so that the next run can put another in its place."""
    blocks = [_Block(text) for text in _head(review)]
    blocks += [_Block(text) for text in _findings(review)]
    blocks += _impact(review.impact) if review.impact else []
    if review.validation is None:
        blocks += [_Block(text) for text in _risks(review)]
        blocks += [_change(change, review, context) for change in risk.shown(review.plan)]
    blocks += [_Block(text) for text in _asides(review)]
    return _fitted(blocks, context)


def marker(review: Review) -> str:
    """The first line: the same for the same command and cluster, whatever was found."""
    snapshot = review.basis.snapshot
    command = "validate" if review.validation else "plan"
    name = re.sub(r"[^\w./-]|--", "_", f"{snapshot.organization}/{snapshot.cluster}")
    return f"<!-- insights-applier {command} {name} -->"


# --- what fits -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=False)
class _Block:
    """A piece of the comment, and a shorter one for where it does not fit; `counts` is True for a change."""

    text: str
    short: str = ""
    counts: bool = False


def _fitted(blocks: Sequence[_Block], context: Context) -> str:
    """All blocks while there is room, then the short ones, then nothing but a sentence."""
    room, kept, left_out = LIMIT - _RESERVED - len(context.link), [], 0
    for block in blocks:
        text = next((text for text in (block.text, block.short) if text and _length(text) + 2 <= room), "")
        room -= _length(text) + 2 if text else 0
        kept += [text] if text else []
        left_out += text != block.text
    if left_out:
        changes = sum(block.counts for block in blocks)
        where = f"[the whole report]({_link(context.link)})" if context.link else "`insights-applier plan`"
        kept.append(
            f"**This comment is cut**: {left_out} of its parts ({changes} changes in all) did not fit, or not in full. "
            f"See {where}."
        )
    return "\n\n".join(kept) + "\n"


def _length(text: str) -> int:
    """As GitHub counts: in units of UTF-16."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


# --- words of others -------------------------------------------------------------------------------


def words(text: str) -> str:
    """Words of others on one line, as words: no Markdown, no HTML, no mention, no reference and no link."""
    flat = " ".join(printable(text.replace("\n", " ")).split())
    cut = flat if len(flat) <= _LONGEST_WORDS else f"{flat[:_LONGEST_WORDS]}…"
    safe = _MARKDOWN.sub(r"\\\g<0>", html.escape(_CALLS.sub("\\g<0>\0", cut), quote=False)).replace("\0", _NOTHING)
    return f"{_NOTHING}{safe}" if _BEGINS.match(cut) else safe


def code(text: str) -> str:
    """The same as code: a span whose ticks are more than any in it."""
    flat = " ".join(printable(text.replace("\n", " ")).split()) or " "
    ticks = "`" * (max(map(len, _TICKS.findall(flat)), default=0) + 1)
    gap = " " if ticks != "`" else ""
    return f"{ticks}{gap}{flat}{gap}{ticks}"


def fenced(text: str, language: str) -> str:
    """A block of code whose fence is longer than any run of ticks in it."""
    fence = "`" * max(3, max(map(len, _TICKS.findall(text)), default=0) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _link(link: str) -> str:
    return link.replace("(", "%28").replace(")", "%29").replace(" ", "%20")


# --- the parts -------------------------------------------------------------------------------------


def _head(review: Review) -> Iterator[str]:
    snapshot = review.basis.snapshot
    title = "Validation" if review.validation else "Plan"
    of = words(f"{snapshot.organization}/{snapshot.cluster}")
    yield f"{marker(review)}\n### {title} of {of}\n\n**{words(headline(review))}**"
    for refusal in review.plan.refusals:
        yield _refusal(refusal)


def _refusal(refusal: Refused) -> str:
    lines = [f"> [!CAUTION]\n> **Refused** (exit code {int(refusal.code)}): {words(refusal.message)}"]
    lines += [f"> - {words(subject)}" for subject in refusal.subjects[:_MOST_SUBJECTS]]
    if len(refusal.subjects) > _MOST_SUBJECTS:
        lines.append(f"> - and {len(refusal.subjects) - _MOST_SUBJECTS} more")
    return "\n".join([*lines, ">", f"> {words(refusal.hint)}"])


def _findings(review: Review) -> Iterator[str]:
    errors = review.verdict.errors
    if errors:
        yield "\n".join(
            [f"#### {_number(errors, 'error')}", *_listed([_finding(one) for one in errors], _MOST_FINDINGS)]
        )
    found = review.validation
    unchecked = sorted(found.unchecked - found.invalid) if found else []
    if unchecked:
        listed = _listed([f"- {code(str(identity))}" for identity in unchecked], _MOST_POLICIES)
        yield "\n".join(["#### Unchecked", "Neither the kyverno CLI nor the server could judge these:", "", *listed])


def _finding(finding: Finding) -> str:
    problem = finding.problem
    place = f"{problem.source}:{problem.line}" if problem.line else problem.source
    field = f" {code(problem.field)}" if problem.field else ""
    return f"- {code(str(finding.policy))}{field}: {words(problem.message)} ({finding.layer.value}, {code(place)})"


def _impact(impact: Impact) -> Iterator[_Block]:
    """The counts, then a folded table for each effect, and what was not evaluated."""
    yield _Block(f"#### Impact on {words(impact.source)}\n**{said.counts(impact)}**. {said.evaluated(impact)}")
    for effect in Effect:
        if count := impact.count(effect):
            yield _impact_table(effect, count, list(said.rows(impact, effect)))
    if told := [f"- {words(sentence)}" for sentence in said.not_evaluated(impact)]:
        yield _Block(_folded("Not evaluated", _listed(told, _MOST_SUBJECTS)), "Some things were **not evaluated**.")


def _impact_table(effect: Effect, count: int, rows: Sequence[said.Row]) -> _Block:
    """A row for each rule in each namespace, while there is room for them."""
    room, lines = _LONGEST_TABLE, []
    for row in rows:
        resources = said.some(row.resources)
        cells = (row.namespace or "–", resources, said.rule_of(row.policy, row.rule), row.message)
        line = f"| {' | '.join(map(_cell, cells))} |"
        room -= _length(line) + 1
        if room < 0:
            break
        lines.append(line)
    more = [f"\nAnd {len(rows) - len(lines)} more rows."] if len(rows) > len(lines) else []
    summary = f"{_IMPACT_MARKS[effect]} {count} {said.outcome(effect)}"
    heading = ["| Namespace | Resources | Policy | Message |", "| --- | --- | --- | --- |"]
    return _Block(_folded(summary, [*heading, *lines, *more]), summary)


def _cell(text: str) -> str:
    """Words of others in a cell, which no bar of theirs ends."""
    return words(text).replace("\\|", "&#124;")


def _risks(review: Review) -> Iterator[str]:
    """What to look at, by level; the policies of each with everything of that level that they do."""
    found = risk.of_plan(review.plan)
    for level in (level for level in Level if level.warns):
        of_policies: dict[str, list[Risk]] = {}
        for one in found:
            if one.level is level:
                of_policies.setdefault(str(one.policy), []).append(one)
        if of_policies:
            bullets = [
                f"- {code(name)}: {' '.join(dict.fromkeys(words(one.text) for one in risks))}"
                for name, risks in of_policies.items()
            ]
            heading = f"#### {_MARKS[level]} {level.title} ({len(of_policies)})"
            yield "\n".join(
                [heading, f"_{level.meaning[0].upper()}{level.meaning[1:]}._", "", *_listed(bullets, _MOST_POLICIES)]
            )


def _change(change: Change, review: Review, context: Context) -> _Block:
    risks = risk.of_change(change, review.plan)
    mark = _MARKS[risk.level(risks)]
    line = f"{mark} {SIGNS[change.action]} {change.action.value} <code>{html.escape(str(change.identity))}</code>"
    told = [f"- {words(remark)}" for remark in _remarks(change)] + [f"- {words(one.text)}" for one in risks]
    body = "\n".join(_listed(told, _MOST_SUBJECTS))
    short = f"<details><summary>{line}</summary>\n\n{body}\n\n</details>"
    if not context.diffs:
        return _Block(short, counts=True)
    whole = f"<details><summary>{line}</summary>\n\n{body}\n\n{fenced(_difference(change), 'diff')}\n\n</details>"
    return _Block(whole, short, counts=True)


def _remarks(change: Change) -> Iterator[str]:
    if change.reason:
        yield change.reason
    if change.drifted_by:
        yield f"its spec was also written by {', '.join(change.drifted_by)}"
    if change.rehearsed is Rehearsed.NOT_ASKED:
        yield "not dry-run: this account may not write it"
    if change.rehearsed is Rehearsed.REFUSED:
        yield "the server refuses it, see the errors"


def _difference(change: Change) -> str:
    lines = difference.lines(change)
    text = "\n".join(lines)
    if len(text) <= _LONGEST_DIFF:
        return text
    kept = text[:_LONGEST_DIFF].rpartition("\n")[0]
    return f"{kept}\n… {len(lines) - kept.count(chr(10)) - 1} more lines"


def _asides(review: Review) -> Iterator[str]:
    """What is good to know, folded; the basis last."""
    notices = [f"- {words(str(notice))} ({notice.layer.value})" for notice in review.verdict.notices]
    if notices:
        yield _folded(_number(notices, "warning"), _listed(notices, _MOST_FINDINGS))
    notes = [f"- {words(note)}" for note in review.plan.notes]
    notes += [f"- {code(str(identity))}: {words(reason)}" for identity, reason in review.verdict.unjudged]
    if notes:
        yield _folded(_number(notes, "note"), _listed(notes, _MOST_FINDINGS))
    basis = review.basis
    told = [f"digest {code(basis.snapshot.digest[:12])}", f"{len(basis.snapshot.policies)} policies"]
    if basis.commit:
        told.insert(0, f"commit {code(basis.commit[:12])}")
    yield f"<sub>Snapshot: {', '.join(told)}.</sub>"


def _folded(summary: str, lines: Iterable[str]) -> str:
    return "\n".join([f"<details><summary>{summary}</summary>", "", *lines, "", "</details>"])


def _listed(lines: Sequence[str], most: int) -> list[str]:
    more = len(lines) - most
    return [*lines[:most], *([f"- and {more} more"] if more > 0 else [])]


def _number(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"
