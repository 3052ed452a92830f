"""Pure: the order of writes, so that nothing which both ends admit is denied on the way, and nothing slips through."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Final

from applier.change import Action, Change
from renderer.manifest import effect

_ROLES: Final = {
    "PolicyException": "exception",
    "GlobalContextEntry": "context",
    "ValidatingAdmissionPolicyBinding": "binding",
    "MutatingAdmissionPolicyBinding": "binding",
}
_STEPS: Final = (
    *("create exception", "create context", "create policy", "create binding"),
    *("tighten", "change"),
    *("delete binding", "delete policy", "delete context", "delete exception"),
)


def steps(changes: Iterable[Change]) -> list[list[Change]]:
    """The changes that write, in steps to be made one after the other; the same changes give the same steps.

    New exceptions; then creates, what others refer to first (a context before the policies that read it, a policy
    before its binding); updates that tighten; other updates; deletes, bindings first; removed exceptions. The order
    within a step does not matter: its changes may be written at the same time.
    """
    writing = (change for change in changes if change.action not in (Action.UNCHANGED, Action.REFUSED))
    found = sorted(writing, key=lambda change: (_step(change), change.identity))
    return [list(step) for _, step in groupby(found, key=_step)]


def _step(change: Change) -> int:
    if change.action in (Action.CREATE, Action.DELETE):
        return _STEPS.index(f"{change.action.value} {_ROLES.get(change.identity.kind.name, 'policy')}")
    return _STEPS.index("tighten" if _tightens(change) else "change")


def _tightens(change: Change) -> bool:
    found = effect.compare(change.before, change.after, change.identity.kind)
    return found.tightens and not found.loosens
