"""From the values of options to the parts that do the work: the one place that wires them together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from renderer.errors import ConfigurationError

if TYPE_CHECKING:
    from applier.cluster.policies import KubernetesCluster
    from applier.guards.refusals import Allowed
    from applier.guards.self_block import SelfBlock
    from applier.history.format import Origin
    from applier.history.revisions import Keeper
    from applier.history_command import Kept
    from applier.journal.configmaps import Family
    from applier.journal.key import Key
    from applier.journal.store import Store
    from applier.kyverno_cli import KyvernoCli
    from applier.lock import LockSettings
    from applier.lock.elector import Durations
    from applier.pipeline import Checks
    from applier.ports import Evaluator
    from applier.recovery import Journalling
    from applier.selection import Selection
    from applier.transaction.writes import WriteSettings
    from renderer.insights.config import Token
    from renderer.manifest.policyset import PolicySet


def connect(settings: dict[str, Any]) -> KubernetesCluster:
    """The cluster that the options name."""
    from applier.cluster.connection import Connection
    from applier.cluster.policies import KubernetesCluster

    connection = Connection.open(
        kubeconfig=settings["kubeconfig"], context=settings["context"], write_seconds=durations(settings).write
    )
    return KubernetesCluster(connection)


def durations(settings: dict[str, Any]) -> Durations:
    """How long the Lease and each write last."""
    from applier.lock.elector import Durations

    # What only reads has no such flag.
    return Durations.of(settings["lease_duration"]) if "lease_duration" in settings else Durations()


def allowed(settings: dict[str, Any]) -> Allowed:
    """What the guards let pass."""
    from applier.guards.refusals import Allowed, MaxDelete

    return Allowed(
        empty=settings["allow_empty"],
        adopt=settings["adopt"],
        replace=settings["allow_replace"],
        self_block=settings["allow_self_block"],
        # A sync has no such flag: there, what Insights wants is decided.
        weaken=settings.get("allow_weaken", True),
        max_delete=MaxDelete.of(settings["max_delete"]),
    )


def selected(settings: dict[str, Any]) -> Selection:
    """Which policies the plan is about."""
    from applier.selection import Selection

    return Selection(only=settings["only"], exclude=settings["exclude"])


def locking(settings: dict[str, Any]) -> LockSettings:
    """How the lock is taken."""
    from applier import lock

    return lock.LockSettings(
        namespace=lock_namespace(settings),
        wait=settings["lock_wait"],
        hold=settings["lock_timeout"],
        file=settings["lock_file"] or lock.FILE,
        durations=durations(settings),
    )


def writing(settings: dict[str, Any]) -> WriteSettings:
    """How changes are written, and what becomes of them when one fails."""
    from applier.transaction.writes import OnFailure, WriteSettings

    return WriteSettings(
        on_failure=OnFailure(settings["on_failure"]),
        concurrency=settings["concurrency"],
        grace=settings["grace"],
        delete_timeout=settings["delete_timeout"],
        # The server may be a moment late, too.
        unsettled=durations(settings).write + 1,
    )


def journalling(
    settings: dict[str, Any], cluster: KubernetesCluster, token: Token | None, *, supersede: bool = False
) -> Journalling:
    """Where journals are kept and what signs them."""
    from applier.journal.configmaps import JOURNALS
    from applier.recovery import Journalling

    store = _store(settings, cluster, JOURNALS, settings["journal"])
    return Journalling(store=store, key=key(settings, token), supersede=supersede)


def _store(settings: dict[str, Any], cluster: KubernetesCluster, family: Family, directory: Path | None) -> Store:
    """The directory, or, without one, ConfigMaps of that family in the lock's namespace."""
    from applier.cluster.config_maps import KubernetesConfigMaps
    from applier.journal.configmaps import ConfigMapStore
    from applier.journal.store import DirectoryStore

    if directory:
        return DirectoryStore(directory)
    return ConfigMapStore(KubernetesConfigMaps(cluster.connection), lock_namespace(settings), family)


def key(settings: dict[str, Any], token: Token | None) -> Key | None:
    """What signs journals and revisions."""
    from applier.journal.key import Key, read_key

    if settings["journal_key"]:
        return read_key(settings["journal_key"])
    return Key(token.reveal().encode()) if token else None


def kept(settings: dict[str, Any], cluster: KubernetesCluster, key: Key | None) -> Kept:
    """Where revisions are kept: beside the journals."""
    from applier.history.revisions import REVISIONS
    from applier.history_command import Kept

    directory = settings["journal"] and settings["journal"] / "revisions"
    store = _store(settings, cluster, REVISIONS, directory)
    return Kept(store=store, key=key, namespace=lock_namespace(settings))


def keeper(
    settings: dict[str, Any], cluster: KubernetesCluster, key: Key | None, origin: Origin, wanted: PolicySet
) -> Keeper:
    """What keeps a revision once those policies are in place."""
    from applier.history.in_place import in_place
    from applier.history.revisions import Keeper

    # A sync takes all of them.
    whole = settings.get("prune", True) and not settings.get("only") and not settings.get("exclude")
    return Keeper(
        cluster=cluster,
        store=kept(settings, cluster, key).store,
        key=key,
        most=settings["keep_revisions"],
        origin=origin,
        policies=lambda: wanted if whole else in_place(wanted, selected(settings), cluster.observe()),
    )


def checks(settings: dict[str, Any]) -> Checks:
    """How policies are judged."""
    from applier.kyverno_cli import KyvernoCli
    from applier.pipeline import Checks
    from applier.user_cache import directory

    validator = None
    if settings["validate_policies"]:
        cache = directory("validation") if settings["validation_cache"] else None
        validator = KyvernoCli(KyvernoCli.find(settings["kyverno"] or ""), cache=cache)
    return Checks(
        validator=validator,
        self_block=self_block(settings, validator) if "lock_namespace" in settings else None,
        warnings_as_errors=settings["warnings_as_errors"],
    )


def self_block(settings: dict[str, Any], evaluator: Evaluator | None) -> SelfBlock:
    """What finds policies that would deny our own writes."""
    from applier.guards.self_block import SelfBlock, state

    return SelfBlock(state=state(lock_namespace(settings)), evaluator=evaluator)


def found_cli(settings: dict[str, Any]) -> KyvernoCli | None:
    """The kyverno CLI, if there is one: a plan needs it only where a policy may match our own writes.

    Raises ConfigurationError when the one that is named is not there.
    """
    from applier.kyverno_cli import KyvernoCli

    try:
        return KyvernoCli(KyvernoCli.find(settings["kyverno"] or ""))
    except ConfigurationError:
        if settings["kyverno"]:
            raise
        return None


def lock_namespace(settings: dict[str, Any]) -> str:
    """The namespace of the Lease, of journals and of revisions."""
    from applier import lock
    from applier.cluster.connection import pod_namespace

    return settings["lock_namespace"] or pod_namespace() or lock.DEFAULT_NAMESPACE
