"""A review in one sentence, for the formats that begin or end with it, and the sign of each action in rich text."""

from __future__ import annotations

from typing import Final

from applier import risk
from applier.change import Action
from applier.report import text, validation
from applier.report.review import Review

#: For pages that are read as Unicode; a terminal may not be able to show them.
SIGNS: Final = {
    Action.CREATE: "+",
    Action.UPDATE: "~",
    Action.ADOPT: "~",
    Action.REPLACE: "±",
    Action.DELETE: "−",
    Action.REFUSED: "!",
}


def headline(review: Review) -> str:
    """`1 to update, 46 unchanged on https://…. Risk: 1 weakens.`, or how many policies are valid."""
    if review.validation:
        return validation.summary(review.validation)
    risks = risk.counts(review.plan)
    return f"{text.counts(review.plan)} {review.where}." + (f" Risk: {risks}." if risks else "")
