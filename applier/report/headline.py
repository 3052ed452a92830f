"""A review in one sentence, for the formats that begin or end with it, and the sign of each action in rich text."""

from __future__ import annotations

from typing import Final

from applier import risk
from applier.change import Action
from applier.report import impact, text, validation
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
    """`1 to update, 46 unchanged on https://…. Risk: 1 weakens.`, with the impact; or how many policies are valid."""
    if review.validation:
        return validation.summary(review.validation)
    told = [f"{text.counts(review.plan)} {review.where}."]
    if risks := risk.counts(review.plan):
        told.append(f"Risk: {risks}.")
    if review.impact:
        told.append(f"{impact.headline(review.impact)}.")
    return " ".join(told)
