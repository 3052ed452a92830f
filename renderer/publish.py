"""From sources to a snapshot on disk, for one cluster: read, check, guard, write, and say what changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from renderer import snapshot
from renderer.commit_message import SnapshotChange, snapshot_change
from renderer.directory import Changed
from renderer.errors import ExitCode, Refusal
from renderer.manifest.policyset import PolicySet
from renderer.render import Source, render


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a snapshot goes, whose it is, whether it may become empty, and whether its change is to be explained."""

    directory: Path
    organization: str
    cluster: str
    allow_empty: bool = False
    explain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What is in the directory now, what that changed there, and what it means; None unless asked and changed."""

    policies: PolicySet
    files: snapshot.Files
    changed: Changed
    change: SnapshotChange | None


def publish(sources: Iterable[Source], target: Target) -> Published:
    """Write the policies of the sources as the snapshot of one cluster.

    Nothing is written when any document is broken (DocumentErrors), when the snapshot would lose every policy
    that it has (Refusal), or when the place can't be written (ConfigurationError).
    """
    policies = render(sources)
    if not len(policies) and not target.allow_empty:
        _refuse_to_empty(target.directory)
    files = snapshot.render_files(policies, organization=target.organization, cluster=target.cluster)
    change = _explanation(policies, files, target) if target.explain else None
    return Published(policies=policies, files=files, changed=snapshot.write(target.directory, files), change=change)


def _explanation(policies: PolicySet, files: snapshot.Files, target: Target) -> SnapshotChange | None:
    if not snapshot.would_change(target.directory, files):
        return None
    return snapshot_change(
        snapshot.policies_at(target.directory),
        policies,
        organization=target.organization,
        cluster=target.cluster,
        digest=files.digest,
    )


def _refuse_to_empty(directory: Path) -> None:
    if len(snapshot.own_paths(directory)) > len(snapshot.EMPTY):
        raise Refusal(
            ExitCode.EMPTY_SET,
            f"There is no policy at all; the snapshot in {directory} would lose every one that it has.",
            hint="If that is meant, allow it with --allow-empty (INSIGHTS_ALLOW_EMPTY=true).",
        )
