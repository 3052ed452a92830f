"""What would be stored, as YAML: each policy that changes, whole, below what is done to it and what that does."""

from __future__ import annotations

from collections.abc import Iterator

from applier import risk
from applier.change import Action, Change, Plan
from applier.report.headline import headline
from applier.report.review import Context, Review
from renderer.errors import printable
from renderer.manifest import yamlio
from renderer.manifest.normalize import content


def write(review: Review, _context: Context) -> str:
    """A stream of documents, the worst change first; `validate` gives every policy that it judged."""
    lines = [f"# {_comment(headline(review))}\n"]
    if review.validation:
        lines += [f"---\n{yamlio.dump(policy.body)}" for policy in review.basis.snapshot.policies]
    else:
        lines += [_document(change, review.plan) for change in risk.shown(review.plan)]
    return "".join(lines)


def _document(change: Change, plan: Plan) -> str:
    """One policy as it would be stored; of one that goes, or is refused, only the comment."""
    comments = "".join(f"# {_comment(line)}\n" for line in _comments(change, plan))
    kept = change.after is not None and change.action not in (Action.DELETE, Action.REFUSED)
    return f"---\n{comments}" + (
        yamlio.dump(content(change.after, change.identity.kind)) if kept and change.after else ""
    )


def _comments(change: Change, plan: Plan) -> Iterator[str]:
    reason = f" ({change.reason})" if change.reason else ""
    yield f"{change.action.value} {change.identity}{reason}"
    for one in risk.of_change(change, plan):
        yield f"  {one.text}"


def _comment(line: str) -> str:
    """The words on one line: what follows a line break would be YAML."""
    return printable(line.replace("\n", " "))
