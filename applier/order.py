"""Pure: the order of writes, so that nothing which both ends admit is denied on the way, and nothing slips through."""

from __future__ import annotations

from collections.abc import Iterable

from applier.change import Action, Change
from renderer.manifest import effect

_BINDINGS = frozenset({"ValidatingAdmissionPolicyBinding", "MutatingAdmissionPolicyBinding"})


def ordered(changes: Iterable[Change]) -> list[Change]:
    """The changes that write, in the order to write them; the same changes give the same order.

    New exceptions; then creates, what others refer to first (a context before the policies that read it, a policy
    before its binding); updates that tighten; other updates; deletes, bindings first; removed exceptions.
    """
    writing = (change for change in changes if change.action is not Action.UNCHANGED)
    return sorted(writing, key=lambda change: (_step(change), change.identity))


def _step(change: Change) -> tuple[int, int]:
    kind = change.identity.kind.name
    exception, binding, context = kind == "PolicyException", kind in _BINDINGS, kind == "GlobalContextEntry"
    if change.action is Action.CREATE:
        return (0, 0) if exception else (1, 0 if context else 2 if binding else 1)
    if change.action is Action.DELETE:
        return (5, 0) if exception else (4, 0 if binding else 2 if context else 1)
    return (2, 0) if _tightens(change) else (3, 0)


def _tightens(change: Change) -> bool:
    found = effect.compare(change.before, change.after, change.identity.kind)
    return found.tightens and not found.loosens
