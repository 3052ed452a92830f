"""Pure: every reason to stop before anything is written, each with its exit code, its flag and its variable."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from applier.change import Refused
from renderer.errors import ConfigurationError, ExitCode

_DEFAULT_COUNT = 5
_DEFAULT_SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxDelete:
    """How many deletions are ordinary: a count, or a percentage of the owned policies, or both must be passed."""

    count: int | None = None
    share: float | None = None

    @classmethod
    def of(cls, text: str | None) -> MaxDelete:
        """Read `N` or `P%`; None is the default: more than 5 *and* more than 25 % are too many."""
        if text is None:
            return cls(count=_DEFAULT_COUNT, share=_DEFAULT_SHARE)
        match = re.fullmatch(r"(\d{1,9})(%?)", text.strip())
        if not match or (match[2] and int(match[1]) > 100):
            raise ConfigurationError(
                f"{text!r} is not accepted; it takes a count such as 10, or a share of the owned policies such as 25%."
            )
        return cls(share=int(match[1]) / 100) if match[2] else cls(count=int(match[1]))

    def exceeded(self, deletions: int, owned: int) -> bool:
        """Whether that many deletions out of so many owned policies are too many."""
        limits = []
        if self.count is not None:
            limits.append(deletions > self.count)
        if self.share is not None:
            limits.append(deletions > self.share * owned)
        return bool(deletions) and all(limits)

    def __str__(self) -> str:
        parts = []
        if self.count is not None:
            parts.append(str(self.count))
        if self.share is not None:
            parts.append(f"{self.share:.0%} of the owned ones")
        return " and ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What the user allows that is refused otherwise."""

    empty: bool = False
    adopt: bool = False
    weaken: bool = False
    replace: bool = False
    self_block: bool = False
    max_delete: MaxDelete = MaxDelete(count=_DEFAULT_COUNT, share=_DEFAULT_SHARE)


def empty_set(at_stake: Sequence[str], owned: int) -> Refused:
    """Nothing is wanted though policies are owned: an accident more often than a wish."""
    return Refused(
        code=ExitCode.EMPTY_SET,
        message="Insights wants no policy at all; applying that would delete "
        f"{'all ' if len(at_stake) == owned else f'{len(at_stake)} of the '}{owned} that it owns here.",
        hint="If that is meant, allow it with --allow-empty (INSIGHTS_ALLOW_EMPTY=true).",
        subjects=tuple(at_stake),
    )


def too_many_deletions(deleted: Sequence[str], owned: int, limit: MaxDelete) -> Refused:
    """More deletions than are ordinary."""
    return Refused(
        code=ExitCode.TOO_MANY_DELETIONS,
        message=f"{len(deleted)} of {owned} owned policies would be deleted, more than the limit of {limit}.",
        hint=f"If that is meant, allow it with --max-delete {len(deleted)} (INSIGHTS_MAX_DELETE={len(deleted)}).",
        subjects=tuple(deleted),
    )


def not_owned(subjects: Sequence[str]) -> Refused:
    """Somebody else's policies have the identities that Insights wants."""
    return Refused(
        code=ExitCode.NOT_OWNED,
        message="These policies exist and are not owned by Insights; they would be overwritten.",
        hint="Rename one of the two, or take them over with --adopt (INSIGHTS_ADOPT=true).",
        subjects=tuple(subjects),
    )


def generated(subjects: Sequence[str]) -> Refused:
    """The objects are kept by a controller, which would undo every change."""
    return Refused(
        code=ExitCode.NOT_OWNED,
        message="These objects are kept by a controller (ownerReferences, or Kyverno's label), which would undo each "
        "change; they are never changed.",
        hint="Rename the policies in Insights.",
        subjects=tuple(subjects),
    )


def terminating(subjects: Sequence[str]) -> Refused:
    """The objects wait for their finalizers; nothing can be written to them for good."""
    return Refused(
        code=ExitCode.TERMINATING,
        message="These policies are being deleted and wait for their finalizers; what is written to them would go with "
        "them.",
        hint="See `kubectl get … -o yaml` for metadata.finalizers; when they are gone, run again.",
        subjects=tuple(subjects),
    )


def weakens(subjects: Sequence[str]) -> Refused:
    """Policies that deny requests are deleted or loosened; each subject says what is taken away."""
    return Refused(
        code=ExitCode.WEAKENS,
        message="These changes take away, or may take away, what denies requests now.",
        hint="If that is meant, allow it with --allow-weaken (INSIGHTS_ALLOW_WEAKEN=true).",
        subjects=tuple(subjects),
    )


def needs_replacing(subjects: Sequence[str]) -> Refused:
    """The server would take these policies, but not as changes of those that are there; each says what would go."""
    return Refused(
        code=ExitCode.NEEDS_REPLACING,
        message="These policies can't be changed in place; they would be deleted and created anew.",
        hint="Give the changed policy another name, or allow it with --allow-replace (INSIGHTS_ALLOW_REPLACE=true). "
        "Meanwhile nothing does what they do, and what is deleted comes back only as they generate it.",
        subjects=tuple(subjects),
    )


def self_blocking(subjects: Sequence[str]) -> Refused:
    """Policies that would deny, or alter, what this program has to write next; each subject says what and why."""
    return Refused(
        code=ExitCode.BLOCKS_ITSELF,
        message="These policies would keep, or might keep, this program from its own next writes: the run could "
        "neither be finished nor taken back.",
        hint="Exclude this account, or the namespace of the lock, from the policy; or allow it with "
        "--allow-self-block (INSIGHTS_ALLOW_SELF_BLOCK=true).",
        subjects=tuple(subjects),
    )


def weakens_note(subjects: Sequence[str]) -> str:
    """What a plan says of that, which refuses nothing for it."""
    return f"`apply` needs --allow-weaken (INSIGHTS_ALLOW_WEAKEN=true) for {', '.join(subjects)}"


def kind_unavailable(subjects: Sequence[str]) -> Refused:
    """A wanted kind that the cluster does not serve, or that this account may not read."""
    return Refused(
        code=ExitCode.KIND_UNAVAILABLE,
        message="These policies are wanted, but their kind can't be managed on this cluster; they would be left out.",
        hint="Install a Kyverno that serves the kind, or grant this account get, list, create, patch and delete.",
        subjects=tuple(subjects),
    )
