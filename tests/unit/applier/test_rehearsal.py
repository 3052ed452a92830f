"""What a dry run is taken for when the policy moves between the look at it and the question."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from applier import pipeline
from applier.guards.refusals import Allowed
from renderer.errors import ExitCode, Refusal
from renderer.manifest.identity import Identity
from tests.support.policies import cluster_policy, desired, identity_of, live, live_object
from tests.support.simulator import SimulatedCluster


def planned(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[SimulatedCluster, Identity], None]) -> Any:
    cluster = SimulatedCluster(live(live_object(cluster_policy())).objects)
    patch = cluster.patch

    def later(identity: Identity, *arguments: Any, **options: Any) -> Any:
        meanwhile(cluster, identity)
        return patch(identity, *arguments, **options)

    monkeypatch.setattr(cluster, "patch", later)
    return pipeline.prepare(cluster, desired(cluster_policy(message="New.")), allowed=Allowed()).plan


def test_an_edit_between_the_list_and_the_dry_run_ends_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refusal, match="Somebody else changed ClusterPolicy/require-team") as raised:
        planned(monkeypatch, lambda cluster, identity: cluster.edit(identity, background=False))
    assert raised.value.code is ExitCode.STALE_PLAN


def test_a_status_that_moves_meanwhile_disturbs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(monkeypatch, lambda cluster, identity: cluster.touch(identity))
    assert [change.identity for change in plan.effective] == [identity_of(cluster_policy())]
