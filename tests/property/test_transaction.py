"""Whatever the two sets and the fault: afterwards the cluster is as before or as wanted, never in between."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from applier import pipeline
from applier.guards import Allowed, MaxDelete
from applier.stop import Stop
from applier.transaction import execute
from renderer.errors import ExitCode
from renderer.manifest.jsontypes import JsonObject
from tests.support.policies import (
    admission_binding,
    admission_policy,
    cluster_policy,
    desired,
    exception,
    live,
    live_object,
    validating_policy,
)
from tests.support.simulator import Fault, SimulatedCluster


def variants(name: str) -> list[JsonObject]:
    return [
        cluster_policy(name),
        cluster_policy(name, message="Other."),
        cluster_policy(name, labels={"tier": "one"}),
        validating_policy(name),
        validating_policy(name, expression="true"),
        admission_policy(name),
        admission_binding(name),
        exception(name),
    ]


@st.composite
def policy_sets(draw: st.DrawFn) -> list[JsonObject]:
    """Policies of several kinds, each identity once."""
    chosen = draw(st.lists(st.sampled_from([body for name in ("a", "b", "c") for body in variants(name)]), max_size=8))
    return list({(body["kind"], body["metadata"]["name"]): body for body in chosen}.values())


@given(
    before=policy_sets(),
    after=policy_sets(),
    faults=st.dictionaries(st.integers(1, 12), st.sampled_from(list(Fault)), max_size=1),
)
def test_all_or_nothing(before: list[JsonObject], after: list[JsonObject], faults: dict[int, Fault]) -> None:
    foreign = live_object(cluster_policy("foreign"), owned=False)
    cluster = SimulatedCluster(live(*map(live_object, before), foreign).objects)
    was = cluster.contents()
    allowed = Allowed(empty=True, max_delete=MaxDelete.of("100%"))
    changes = pipeline.prepare(cluster, desired(*after), allowed=allowed).plan.changes
    cluster.faults = faults
    outcome = execute(cluster, changes, Stop(), delete_timeout=0.2)
    if outcome.success:
        again = pipeline.prepare(cluster, desired(*after), allowed=allowed)
        assert not again.plan.effective
    else:
        assert outcome.code is ExitCode.ROLLED_BACK
        assert cluster.contents() == was
    assert any(body["metadata"]["uid"] == foreign["metadata"]["uid"] for body in cluster.objects.values())
