"""A plan, or what validation found, as one JSON document that people can read, too."""

from __future__ import annotations

import json

from applier.report import document, validation
from applier.report.review import Context, Review


def write(review: Review, context: Context) -> str:
    """The document of the command; what can't be encoded where it goes is escaped as JSON has it."""
    if review.validation:
        found = validation.document(review.validation)
    else:
        found = document.document(review.plan, review.verdict, review.basis, review.impact)
    return json.dumps(found, ensure_ascii=context.ascii, indent=2) + "\n"
