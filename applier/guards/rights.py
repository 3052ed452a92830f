"""The rights that a run needs beyond those that its dry runs prove: to look, take back, keep its lock and its journal.

Without them a write could be made, and then neither confirmed nor undone. So they are asked for before the first one,
and all that are missing are told at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from applier.change import Action, Change
from applier.ports import Access, Cluster
from renderer.errors import NotPermitted

_HINT: Final = "Grant the account these rights; `insights-renderer deploy` renders roles that hold all of them."
#: What takes a change back, where that is another verb than made it.
_UNDONE_BY: Final[Mapping[Action, tuple[str, ...]]] = {
    Action.CREATE: ("delete",),
    Action.DELETE: ("create",),
    Action.REPLACE: ("create", "delete"),
}


def require(cluster: Cluster, changes: Iterable[Change], kept: Sequence[Access], *, undo: bool) -> None:
    """Ask whether this account may confirm these changes, with `undo` take them back, and do what `kept` says.

    Raises NotPermitted that names every right that is missing, by kind.
    """
    needed: dict[Access, list[Access]] = {}
    for change in changes:
        for verb in ("get", *(_UNDONE_BY.get(change.action, ()) if undo else ())):
            needed.setdefault(_on_kind(change, verb), []).append(_on_object(change, verb))
    if not needed:
        return
    missing = cluster.denied([*needed, *kept])
    # A role may be good for some namespaces only, or for objects by name.
    missing = cluster.denied([narrow for wide in missing for narrow in needed.get(wide, (wide,))])
    if missing:
        raise refusal(dict.fromkeys(missing, ""))


def refusal(missing: Mapping[Access, str]) -> NotPermitted:
    """The error that names the rights that are missing, with what the server said of each, if anything."""
    lines: dict[str, str] = {}
    for access, said in missing.items():
        where = f" in namespace {access.namespace}" if access.namespace else ""
        lines.setdefault(f"{access.verb} on {access.resource}{where}", said)
    return NotPermitted(
        "This account lacks rights that the run needs; nothing was written.",
        details=[f"{right}: {said}" if said else right for right, said in sorted(lines.items())],
        hint=_HINT,
    )


def of_dry_run(change: Change) -> Access:
    """The right that the dry run of a change needs."""
    verb = change.action.value if change.action in (Action.CREATE, Action.DELETE) else "patch"
    return _on_kind(change, verb)


def _on_kind(change: Change, verb: str) -> Access:
    kind = change.identity.kind
    return Access(verb=verb, group=kind.group, plural=kind.plural)


def _on_object(change: Change, verb: str) -> Access:
    identity = change.identity
    # What is created has no name yet that a role could look at.
    name = "" if verb == "create" else identity.name
    kind = identity.kind
    return Access(verb=verb, group=kind.group, plural=kind.plural, namespace=identity.namespace, name=name)
