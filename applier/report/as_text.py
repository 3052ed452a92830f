"""A plan, or what validation found, as text for people; its colours are stripped where they can't be seen."""

from __future__ import annotations

from collections.abc import Iterator

from applier.report import text, validation
from applier.report.impact import impact_lines
from applier.report.review import Context, Review


def write(review: Review, context: Context) -> str:
    """The lines that a terminal shows."""
    return "".join(f"{line}\n" for line in _lines(review, context))


def _lines(review: Review, context: Context) -> Iterator[str]:
    plan, verdict = review.plan, review.verdict
    if review.validation:
        shown = validation.brief_lines if context.brief else validation.lines
        return shown(review.validation)
    if context.brief:
        return text.brief_lines(plan, where=review.where, verdict=verdict)
    said = [*text.verdict_lines(verdict), *(impact_lines(review.impact) if review.impact else ())]
    return text.plan_lines(plan, where=review.where, diffs=context.diffs, said=said)
