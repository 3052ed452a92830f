"""What is told of each write when it is read back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import structlog

from applier.change import Action, Change
from applier.ports import Live
from applier.transaction.undo import Written
from applier.transaction.verification import verify
from renderer.errors import RemoteError
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import KINDS
from renderer.manifest.normalize import content
from tests.support.policies import cluster_policy, desired, live, live_object, validating_policy
from tests.support.simulator import SimulatedCluster

OLD, NEW = cluster_policy("p"), cluster_policy("p", message="Other.")
BEFORE = live_object(OLD)
(POLICY,) = desired(NEW)
IDENTITY, KIND = POLICY.identity, POLICY.identity.kind
AFTER = content(POLICY.body, KIND)
DELETED = "it was to be deleted and is still there."
AGAIN = "somebody else created it again after this run deleted it."
GONE = "it is not there any more: somebody else deleted it after this run wrote it."
PUT_BACK = "it is as it was before: somebody else put it back after this run wrote it."
UNREAD = "What was written could not be read back"
THEIRS = "somebody else changed it after this run wrote it; theirs stands."


def there(body: JsonObject | None, *, anew: bool = False, **labels: str) -> SimulatedCluster:
    if body is None:
        return SimulatedCluster()
    held = live_object(body, uid="another" if anew else BEFORE["metadata"]["uid"])
    if labels:
        held["metadata"]["labels"] = labels
    return SimulatedCluster(live(held).objects)


def written(action: Action) -> Written:
    before = None if action is Action.CREATE else BEFORE
    after = None if action is Action.DELETE else AFTER
    return Written(change=Change(identity=IDENTITY, action=action, before=before, after=after))


OTHER = cluster_policy("p", message="Theirs.")


@pytest.mark.parametrize(
    ("action", "held", "missing", "changed"),
    [
        (Action.CREATE, there(NEW), "", ""),
        (Action.CREATE, there(None), GONE, ""),
        (Action.CREATE, there(OTHER), "", THEIRS),
        (Action.UPDATE, there(NEW), "", ""),
        (Action.UPDATE, there(None), GONE, ""),
        (Action.UPDATE, there(OLD), PUT_BACK, ""),
        (Action.UPDATE, there(OLD, team="platform"), PUT_BACK, ""),
        (Action.UPDATE, there(NEW, team="platform"), "", THEIRS),
        (Action.UPDATE, there(OTHER), "", THEIRS),
        (Action.REPLACE, there(NEW, anew=True), "", ""),
        (Action.DELETE, there(None), "", ""),
        (Action.DELETE, there(OLD), DELETED, ""),
        (Action.DELETE, there(OLD, anew=True), "", AGAIN),
    ],
)
def test_a_write_is_there_or_missing_or_changed_since(
    action: Action, held: SimulatedCluster, missing: str, changed: str
) -> None:
    found = verify(held, [written(action)])
    assert found.missing == ({IDENTITY: missing} if missing else {})
    assert found.changed_since == ({IDENTITY: changed} if changed else {})


def test_a_label_that_was_all_that_changed_and_is_as_before_was_put_back() -> None:
    relabelled = replace(written(Action.UPDATE).change, after=content(live_object(OLD, labels={"tier": "two"}), KIND))
    entry = Written(change=relabelled)
    assert verify(there(OLD), [entry]).missing == {IDENTITY: PUT_BACK}
    assert verify(there(OLD, team="platform"), [entry]).changed_since == {IDENTITY: THEIRS}


class Asked(SimulatedCluster):
    """Keeps which kinds were listed, and can't list one of them."""

    def __init__(self, *hidden: str) -> None:
        super().__init__()
        self._hidden = hidden
        self.listed: list[str] = []

    def observe(self, kinds: object = KINDS) -> Live:
        """See `ports.Cluster`."""
        assert isinstance(kinds, list)
        self.listed += [kind.name for kind in kinds]
        unreadable = {kind: "no rights" for kind in kinds if kind.name in self._hidden}
        return replace(live(), unreadable=unreadable)


class Away(SimulatedCluster):
    """A cluster that does not answer."""

    def observe(self, kinds: object = KINDS) -> Live:
        """See `ports.Cluster`."""
        raise RemoteError(f"away, whatever is asked: {kinds}")


def test_each_kind_that_was_written_is_listed_once() -> None:
    (other,) = desired(validating_policy("v"))
    entries = [
        written(Action.CREATE),
        replace(written(Action.CREATE), change=Change(identity=other.identity, action=Action.CREATE, after=other.body)),
    ]
    cluster = Asked()
    assert list(verify(cluster, entries).missing) == [IDENTITY, other.identity]
    assert sorted(cluster.listed) == ["ClusterPolicy", "ValidatingPolicy"]
    with structlog.testing.capture_logs() as lines:
        assert list(verify(Asked("ClusterPolicy"), entries).missing) == [other.identity]
    assert lines == [{"log_level": "warning", "event": UNREAD, "policy": "ClusterPolicy/p"}]


def test_where_the_cluster_cannot_be_read_its_answers_have_to_do() -> None:
    cluster = Away()
    with structlog.testing.capture_logs() as lines:
        found = verify(cluster, [written(Action.UPDATE)])
    assert [(line["log_level"], line["event"]) for line in lines] == [("warning", UNREAD)]
    assert lines[0]["reason"].startswith("away")
    assert (found.missing, found.changed_since) == ({}, {})
