"""Which revisions are kept, which go, and that a revision is whole or not there, in both stores."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import stamina

from applier.history.format import Head, Origin, RevisionError, read_head, write_head
from applier.history.in_place import in_place
from applier.history.revisions import REVISIONS, Keeper, Revision, current, policies_of, revisions
from applier.history_command import Kept, choose
from applier.journal.configmaps import ConfigMapStore
from applier.journal.key import Key
from applier.journal.sealed import Trust
from applier.journal.store import DirectoryStore, Store
from applier.lock.elector import Held
from applier.selection import Pattern, Selection
from applier.stop import Stop
from applier.transaction.execution import Outcome
from renderer.errors import NotPermitted, RemoteError
from renderer.manifest.policyset import PolicySet
from renderer.snapshot import digest_of
from tests.support.journals import SimulatedConfigMaps
from tests.support.policies import cluster_policy, desired, exception, identity_of, live, live_object, namespaced_policy
from tests.support.simulator import SimulatedCluster

KEY = Key(b"the token of Insights")
LEASE = "4f0c-lease"
HELD = Held(holder="host_1_ab", uid=LEASE, transitions=3, taken_over=False, quiet_at=0.0)
CLUSTER = SimulatedCluster()


@pytest.fixture
def config_maps() -> SimulatedConfigMaps:
    return SimulatedConfigMaps()


@pytest.fixture(params=["configmaps", "directory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, config_maps: SimulatedConfigMaps) -> Store:
    if request.param == "directory":
        return DirectoryStore(tmp_path / "revisions")
    return ConfigMapStore(config_maps, "here", REVISIONS)


def policies(text: str) -> PolicySet:
    return desired(cluster_policy("one", message=text), exception("two"))


def keep(store: Store, text: str, *, most: int = 10, key: Key | None = KEY, stop: Stop | None = None) -> None:
    keeper = Keeper(
        cluster=CLUSTER,
        store=store,
        key=key,
        most=most,
        origin=Origin(command="apply"),
        policies=lambda: policies(text),
    )
    keeper.keep(HELD, stop or Stop(), Outcome(applied=(identity_of(cluster_policy("one")),)))


def found(store: Store, key: Key | None = KEY) -> list[Revision]:
    return revisions(store, key, cluster=CLUSTER.identity, lease=LEASE)


def numbers(store: Store) -> list[int]:
    return [one.number for one in found(store)]


def rewritten(store: Store, number: int, change: Callable[[Head], Head], *, key: Key | None) -> None:
    (one,) = [one for one in found(store) if one.number == number]
    assert one.head is not None
    changed = change(one.head)
    if changed.name == one.name:
        store.replace_head(one.name, write_head(changed, key))
    else:
        store.put_head(changed.name, write_head(changed, key))


def test_a_revision_is_found_as_it_was_kept(store: Store) -> None:
    keep(store, "One.")
    (one,) = found(store)
    assert one.head is not None
    assert (one.number, one.verified, one.head.run, one.head.account) == (1, True, "host_1_ab", "applier")
    assert (one.head.policies, one.head.created, one.head.updated, one.head.deleted) == (2, 1, 0, 0)
    assert one.head.digest == digest_of(policies("One."))
    assert list(policies_of(store, one)) == list(policies("One."))


def test_one_is_kept_when_the_set_is_another_than_the_latest(store: Store) -> None:
    for text, expected in (("One.", [1]), ("One.", [1]), ("Two.", [2, 1]), ("One.", [3, 2, 1]), ("One.", [3, 2, 1])):
        keep(store, text)
        assert numbers(store) == expected


def test_the_same_set_compressed_otherwise_is_the_same(store: Store) -> None:
    keep(store, "One.")
    rewritten(store, 1, lambda head: replace(head, chunks=("0" * 64,)), key=KEY)
    keep(store, "One.")
    assert numbers(store) == [1]


def test_as_many_are_kept_as_was_said_and_nothing_else_lies_about(store: Store) -> None:
    for number in range(5):
        keep(store, f"{number}.", most=3)
    assert numbers(store) == [5, 4, 3]
    keep(store, "4.", most=2)  # in sync: what is too old goes all the same
    assert numbers(store) == [5, 4]
    keep(store, "5.", most=0)
    assert store.heads() == {}
    assert store.headless(LEASE) == set()


def test_what_has_no_head_is_swept(store: Store) -> None:
    store.put_chunk("4f0cleas-9-aa", "0" * 64, b"x")
    assert found(store) == []
    keep(store, "One.")
    assert store.headless(LEASE) == set()
    assert numbers(store) == [1]


def test_what_can_not_be_verified_counts_for_nothing(store: Store) -> None:
    keep(store, "One.")
    rewritten(store, 1, lambda head: replace(head, name="forged", number=900), key=None)
    assert [(one.number, one.trust) for one in found(store)] == [(900, Trust.UNSIGNED), (1, Trust.VERIFIED)]
    latest = current(found(store))
    assert latest is not None
    assert latest.number == 1
    keep(store, "Two.")
    assert numbers(store) == [900, 2, 1]
    keep(store, "Three.", most=3)  # and goes before what can
    assert numbers(store) == [3, 2, 1]


def test_a_forged_copy_of_what_is_wanted_does_not_keep_ours_from_being_kept(store: Store) -> None:
    keep(store, "One.", key=Key(b"somebody else's"))
    keep(store, "One.")
    assert [(one.number, one.verified) for one in found(store)] == [(2, True), (1, False)]


def test_without_a_key_all_count(store: Store) -> None:
    for text in ("One.", "One.", "Two."):
        keep(store, text, key=None)
    assert [(one.number, one.trust) for one in found(store, key=None)] == [(2, Trust.NO_KEY), (1, Trust.NO_KEY)]


def test_another_clusters_and_another_name_are_problems(store: Store) -> None:
    keep(store, "One.")
    rewritten(
        store, 1, lambda head: replace(head, name="other", lease="x", cluster={"namespace/kube-system": "y"}), key=KEY
    )
    (_, data) = next(iter(store.heads().items()))
    store.put_head("copied", data)
    store.put_head("broken", b"{")
    problems = {one.name: one.problem for one in found(store)}
    assert problems["other"] == "it is of another cluster."
    assert problems["copied"] == "its head is that of another revision."
    assert problems["broken"] == "its head can't be read."
    keep(store, "Two.", most=2)
    # Another cluster's is not ours to remove.
    assert sorted((one.number, one.problem) for one in found(store)) == [
        (1, ""), (1, "it is of another cluster."), (2, ""),
    ]  # fmt: skip


def test_what_can_not_be_used_is_named(store: Store) -> None:
    keep(store, "One.")
    (one,) = found(store)
    store.remove_chunks(one.name)
    with pytest.raises(RevisionError, match=r"Revision 1 in .* can't be used: chunk 1 of 1 is missing"):
        policies_of(store, one)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("moment", ["before_write", "after_write"])
def test_a_lost_answer_is_no_failure(config_maps: SimulatedConfigMaps, number: int, moment: str) -> None:
    store = ConfigMapStore(config_maps, "here", REVISIONS)
    keep(store, "One.")
    count = iter(range(100))

    def lose() -> None:
        if next(count) == number:
            raise RemoteError("the connection broke")

    setattr(config_maps, moment, lose)
    with stamina.set_testing(True, attempts=4):
        keep(store, "Two.", most=1)
    assert numbers(store) == [2]
    assert len(config_maps.objects) == 2


def test_what_can_not_be_kept_is_told_and_fails_nothing(
    config_maps: SimulatedConfigMaps, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ConfigMapStore(config_maps, "here", REVISIONS)

    def refuse() -> None:
        raise NotPermitted("403")

    config_maps.before_write = refuse
    keep(store, "One.")
    stopped = Stop()
    stopped.set("SIGTERM arrived")
    config_maps.before_write = lambda: None
    keep(store, "One.", stop=stopped)
    told = capsys.readouterr()
    words = told.out + told.err
    assert words.count("no revision of them is kept") == 2
    assert "This account may not read or keep a revision" in words
    assert "SIGTERM arrived" in words
    assert config_maps.objects == {}


def test_a_run_that_is_cut_off_leaves_no_revision(config_maps: SimulatedConfigMaps) -> None:
    store = ConfigMapStore(config_maps, "here", REVISIONS)
    writes = iter(["the chunk"])

    def die() -> None:
        if not next(writes, ""):
            raise SystemExit

    config_maps.before_write = die
    with pytest.raises(SystemExit):
        keep(store, "One.")
    assert len(config_maps.objects) == 1
    assert found(store) == []
    config_maps.before_write = lambda: None
    keep(store, "One.")
    assert (numbers(store), len(config_maps.objects)) == ([1], 2)


class NoLeases:
    """There was no run yet."""

    def read_lease(self, namespace: str, name: str) -> None:
        """See `ports.Leases`."""

    def write_lease(self, lease: object, *, seconds: float) -> dict[str, object]:  # noqa: ARG002 - the port's signature
        """Nothing writes one here."""
        raise AssertionError


def chosen(store: Store, *, to: int | None = None, trust: bool = False, key: Key | None = KEY) -> int:
    kept = Kept(store=store, key=key, namespace="here")
    return choose(CLUSTER, NoLeases(), kept, to=to, trust=trust).head.number


def test_the_default_is_the_one_before_the_latest(store: Store) -> None:
    with pytest.raises(RevisionError, match="No revision is kept in"):
        chosen(store)
    keep(store, "One.")
    with pytest.raises(RevisionError, match="no revision before") as raised:
        chosen(store)
    assert "These are kept: 1." in str(raised.value)
    keep(store, "Two.")
    keep(store, "Three.")
    assert chosen(store) == 2
    assert chosen(store, to=1) == 1
    with pytest.raises(RevisionError, match="There is no revision 7") as raised:
        chosen(store, to=7)
    assert "These are kept: 1, 2, 3." in str(raised.value)


def test_only_a_person_puts_back_what_can_not_be_verified(store: Store) -> None:
    keep(store, "One.")
    keep(store, "Two.")
    forged = json.loads(store.heads()[found(store)[1].name])
    forged["policies"] = 2
    forged["account"] = "somebody"
    store.replace_head(found(store)[1].name, json.dumps(forged).encode())
    assert read_head(json.dumps(forged).encode(), KEY)[1] is Trust.WRONG
    for key in (KEY, None, Key(b"another")):
        with pytest.raises(RevisionError, match="can't be verified") as raised:
            chosen(store, to=1, key=key)
        assert "--trust-history" in str(raised.value)
        assert chosen(store, to=1, key=key, trust=True) == 1
    # A verified one of the same number comes first.
    rewritten(store, 2, lambda head: replace(head, name="zzz", number=2, account="forger"), key=None)
    assert chosen(store, to=2) == 2


def test_a_partial_run_leaves_what_else_is_owned_in_place() -> None:
    new = desired(cluster_policy("one", message="New."), cluster_policy("other", message="New."))
    held = live(
        live_object(cluster_policy("one", message="Old.")),
        live_object(cluster_policy("other", message="Old.", labels={"ours": "x"}), labels={"ours": "x", "theirs": "y"}),
        live_object(namespaced_policy("more")),
        live_object(cluster_policy("foreign"), owned=False),
    )
    kept = in_place(new, Selection(only=(Pattern.of("ClusterPolicy/one"),)), held)
    expected = desired(
        cluster_policy("one", message="New."),
        cluster_policy("other", message="Old.", labels={"ours": "x"}),
        namespaced_policy("more"),
    )
    assert [policy.body for policy in kept] == [policy.body for policy in expected]
