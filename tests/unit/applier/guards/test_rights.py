"""Which rights are asked for before the first write, and how the missing ones are told."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from applier.change import Action, Change
from applier.guards import rights
from applier.ports import Access
from renderer.errors import NotPermitted
from tests.support.policies import cluster_policy, identity_of, namespaced_policy
from tests.support.simulator import SimulatedCluster

KEPT = Access(group="", plural="configmaps", verb="update", namespace="agent")


class Account(SimulatedCluster):
    """A cluster that allows an account all but some verbs, by the width of what is asked."""

    def __init__(self, *denied: str) -> None:
        super().__init__()
        self._denied = denied
        self.asked: list[list[str]] = []

    def denied(self, accesses: Sequence[Access]) -> list[Access]:
        """See `ports.Cluster`."""
        self.asked.append([shown(access) for access in accesses])
        return [access for access in accesses if shown(access) in self._denied]


def shown(access: Access) -> str:
    return " ".join(part for part in (access.verb, access.resource, access.namespace, access.name) if part)


def change(action: Action, *, namespaced: bool = False) -> Change:
    body = namespaced_policy("p") if namespaced else cluster_policy("p")
    return Change(identity=identity_of(body), action=action)


P = "clusterpolicies.kyverno.io"


@pytest.mark.parametrize(
    ("action", "undo", "asked"),
    [
        (Action.CREATE, True, [f"get {P}", f"delete {P}"]),
        (Action.DELETE, True, [f"get {P}", f"create {P}"]),
        (Action.REPLACE, True, [f"get {P}", f"create {P}", f"delete {P}"]),
        (Action.UPDATE, True, [f"get {P}"]),
        (Action.ADOPT, True, [f"get {P}"]),
        (Action.CREATE, False, [f"get {P}"]),
    ],
)
def test_what_confirms_and_takes_back_a_change_is_asked_for_once_a_kind(
    action: Action, undo: bool, asked: list[str]
) -> None:
    cluster = Account()
    rights.require(cluster, [change(action), change(action)], [KEPT], undo=undo)
    assert cluster.asked == [[*asked, "update configmaps agent"], []]


def test_nothing_is_asked_where_nothing_changes() -> None:
    cluster = Account("update configmaps agent")
    rights.require(cluster, [], [KEPT], undo=True)
    assert cluster.asked == []


def test_a_role_for_some_namespaces_or_names_is_enough() -> None:
    cluster = Account("get policies.kyverno.io", "create policies.kyverno.io")
    rights.require(cluster, [change(Action.DELETE, namespaced=True)], [KEPT], undo=True)
    # What is to be created has no name that a role could look at.
    assert cluster.asked[1] == ["get policies.kyverno.io default p", "create policies.kyverno.io default"]


def test_all_that_is_missing_is_told_at_once_by_kind_and_namespace() -> None:
    verbs = ("get", "create")
    wide = [f"{verb} policies.kyverno.io" for verb in verbs]
    narrow = ["get policies.kyverno.io default p", "create policies.kyverno.io default"]
    cluster = Account(*wide, *narrow, "update configmaps agent")
    with pytest.raises(NotPermitted) as caught:
        rights.require(cluster, [change(Action.DELETE, namespaced=True)], [KEPT], undo=True)
    assert caught.value.message == "This account lacks rights that the run needs; nothing was written."
    assert list(caught.value.details) == [
        "create on policies.kyverno.io in namespace default",
        "get on policies.kyverno.io in namespace default",
        "update on configmaps in namespace agent",
    ]
    assert caught.value.hint == (
        "Grant the account these rights; `insights-renderer deploy` renders roles that hold all of them."
    )


def test_a_refusal_repeats_what_the_server_said_of_a_right_first() -> None:
    one, two = (Access(group="kyverno.io", plural="policies", verb="get", name=name) for name in "ab")
    error = rights.refusal({one: "no role binds it", two: "another word", KEPT: ""})
    assert list(error.details) == [
        "get on policies.kyverno.io: no role binds it",
        "update on configmaps in namespace agent",
    ]


@pytest.mark.parametrize(
    ("action", "verb"),
    [
        (Action.CREATE, "create"),
        (Action.DELETE, "delete"),
        (Action.UPDATE, "patch"),
        (Action.ADOPT, "patch"),
        (Action.REPLACE, "patch"),
    ],
)
def test_a_dry_run_needs_the_right_of_its_request(action: Action, verb: str) -> None:
    assert rights.of_dry_run(change(action)) == Access(group="kyverno.io", plural="clusterpolicies", verb=verb)
