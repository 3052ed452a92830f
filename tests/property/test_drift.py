"""Whatever was done to a live policy: applied again, it is as Insights wants it, with what others added still there."""

from __future__ import annotations

import copy
from functools import cache
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from applier import pipeline
from applier.change import Plan
from applier.guards.refusals import Allowed
from applier.stop import Stop
from applier.transaction.execution import execute
from ci.testbed import corpus, toolchain
from renderer.manifest import yamlio
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.policyset import PolicySet
from renderer.render import Source, render
from tests.support.mutation import mutate
from tests.support.policies import live, live_object
from tests.support.simulator import SimulatedCluster


@cache
def real() -> list[JsonObject]:
    """Kyverno's own policies, but for one or two of its tests' that have no spec."""
    found = [policy.body for policy in corpus.policies(toolchain.kyverno_source()) if policy.body.get("spec")]
    assert len(found) > 1500
    return found


@given(number=st.integers(0), seed=st.integers(0, 2**32))
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_drift_of_any_kind_is_repaired(number: int, seed: int) -> None:
    chance = Random(seed)
    body = real()[number % len(real())]
    wanted = render([Source(name="Insights", data=yamlio.dump(body).encode())])
    (policy,) = wanted
    held = live_object(body)
    drifted = copy.deepcopy(held)
    for _ in range(chance.randrange(5)):
        mutate(chance, drifted["spec"])
    foreign = {f"example.com/{key}": "theirs" for key in ("one", "two", "a~b") if chance.random() < 0.5}
    for section in ("labels", "annotations"):
        keys = drifted["metadata"].setdefault(section, {})
        for key in sorted(keys):
            # Without the owner's mark it would be somebody else's policy.
            if not key.startswith("insights.fairwinds.com/") and chance.random() < 0.2:
                del keys[key]
        keys |= foreign
    cluster = SimulatedCluster(live(drifted).objects)

    plan = planned(cluster, wanted)
    assert execute(cluster, plan.changes, Stop()).success
    repaired = cluster.objects[policy.identity]
    assert repaired["spec"] == policy.body["spec"]
    assert repaired["status"] == held["status"]
    for section in ("labels", "annotations"):
        mine = policy.body["metadata"].get(section) or {}
        assert (repaired["metadata"].get(section) or {}) == mine | foreign
    assert planned(cluster, wanted).effective == ()


def planned(cluster: SimulatedCluster, wanted: PolicySet) -> Plan:
    return pipeline.prepare(cluster, wanted, allowed=Allowed()).plan
