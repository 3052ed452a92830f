"""Pure: which policies a run is about, by the patterns of --only and --exclude.

What is outside the selection is neither changed, deleted nor validated. The guards still count it: nothing at all being
wanted is an accident whatever was selected, and deletions are a share of every policy that Insights owns, so that
`--only X` deletes a withdrawn X as any other run would.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from applier.change import Action, Change, Plan
from applier.ports import Live
from renderer.errors import ConfigurationError, UsageError
from renderer.manifest.identity import Identity
from renderer.manifest.kinds import ADMISSION, KINDS, Kind, find
from renderer.manifest.policyset import PolicySet

_FORMS: Final = "Kind/name or Kind/namespace/name, such as ClusterPolicy/require-* or Policy/team-a/*"
_BINDING: Final = "Binding"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """A shell pattern for identities: the kinds that it may mean, a namespace (None: any, or none), a name."""

    text: str
    kinds: frozenset[Kind]
    namespace: str | None
    name: str

    @classmethod
    def of(cls, text: str) -> Pattern:
        """Read `KIND/NAME` or `KIND/NAMESPACE/NAME`; each part may hold the wildcards `*`, `?` and `[…]`.

        A kind is named as in its documents, or by its plural, with or without `.<group>`, in any case; without the
        group, PolicyException means the kinds of both. Raises ConfigurationError for what can match nothing.
        """
        kind, *rest = text.strip().split("/")
        if len(rest) not in (1, 2) or not all((kind, *rest)):
            raise ConfigurationError(f"{text!r} names no policies; it takes {_FORMS}.")
        kinds = frozenset(known for known in KINDS if _is_called(known, kind.lower()))
        if not kinds:
            names = ", ".join(sorted({known.name for known in KINDS}))
            raise ConfigurationError(f"{text!r}: no kind of policy is called {kind}; these are: {names}.")
        namespaced = frozenset(known for known in kinds if known.namespaced)
        if len(rest) == 1:
            return cls(text=text, kinds=kinds, namespace=None, name=rest[0])
        if not namespaced:
            raise ConfigurationError(f"{text!r}: a {kind} is in no namespace; write {kind}/{rest[1]}.")
        return cls(text=text, kinds=namespaced, namespace=rest[0], name=rest[1])

    def __str__(self) -> str:
        return self.text

    def matches(self, identity: Identity) -> bool:
        """Whether it means that policy."""
        return (
            identity.kind in self.kinds
            and (self.namespace is None or fnmatchcase(identity.namespace, self.namespace))
            and fnmatchcase(identity.name, self.name)
        )


def _is_called(kind: Kind, pattern: str) -> bool:
    names = (kind.name.lower(), kind.plural)
    return any(fnmatchcase(name, pattern) or fnmatchcase(f"{name}.{kind.group}", pattern) for name in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The policies that `only` means (all, when it is empty) but for those that `exclude` means."""

    only: tuple[Pattern, ...] = ()
    exclude: tuple[Pattern, ...] = ()

    def __contains__(self, identity: Identity) -> bool:
        return (not self.only or _any(self.only, identity)) and not _any(self.exclude, identity)

    def of(self, policies: PolicySet) -> PolicySet:
        """Those of the policies that are selected."""
        return PolicySet(policy for policy in policies if policy.identity in self)


def _any(patterns: Collection[Pattern], identity: Identity) -> bool:
    return any(pattern.matches(identity) for pattern in patterns)


#: Every policy.
ALL: Final = Selection()


def notes(selected: Selection, drafted: Plan, desired: PolicySet, live: Live) -> Iterator[str]:
    """What people should know of the selection that a draft was made with.

    Raises UsageError for a pattern of `only` that means no policy, wanted or live: a slip would look like "no changes".
    """
    known = {policy.identity for policy in desired} | live.objects.keys()
    for pattern in selected.only:
        if not any(map(pattern.matches, known)):
            raise UsageError(
                f"--only {pattern.text}: no such policy is wanted, and none is there.",
                hint="Look for a slip: `insights-renderer show DIR` lists the policies that are wanted.",
            )
    if known and not any(identity in selected for identity in known):
        yield "nothing is selected: --only and --exclude leave out every policy that is wanted or there"
    for pattern in selected.exclude:
        if not any(map(pattern.matches, known)):
            yield f"--exclude {pattern.text} means no policy that is wanted or there"
    for change in drafted.of(Action.CREATE):
        bound = _bound_by(change)
        if bound and bound in desired and bound not in selected and bound not in live.objects:
            yield f"{change.identity} binds {bound}, which is not selected and does not exist yet"


def _bound_by(change: Change) -> Identity | None:
    """The admission policy that a binding is for."""
    kind = change.identity.kind
    policy_kind = find(ADMISSION, kind.name.removesuffix(_BINDING)) if kind.group == ADMISSION else None
    if policy_kind in (None, kind):
        return None
    spec = (change.after or {}).get("spec") or {}
    return Identity(kind=policy_kind, namespace="", name=str(spec.get("policyName")))
