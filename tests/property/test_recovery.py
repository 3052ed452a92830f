"""Whatever the two sets, wherever the run dies and however often its recovery does: before or after."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from renderer.manifest.jsontypes import JsonObject
from tests.property.test_transaction import policy_sets
from tests.support.mortal import World
from tests.support.policies import cluster_policy, live, live_object
from tests.support.simulator import SimulatedCluster


@given(
    before=policy_sets(),
    after=policy_sets(),
    dies_at=st.integers(1, 20),
    recoveries_die_at=st.lists(st.integers(1, 12), max_size=3),
)
def test_before_or_after(
    before: list[JsonObject], after: list[JsonObject], dies_at: int, recoveries_die_at: list[int]
) -> None:
    foreign = live_object(cluster_policy("foreign"), owned=False)
    place = World(SimulatedCluster(live(*map(live_object, before), foreign).objects))
    was = place.cluster.contents()
    place.run(place.planned(*after), place.recovery(die_at=dies_at))
    for again in recoveries_die_at:
        place.recovered(die_at=again)
    assert place.recovered()
    assert place.config_maps.objects == {}
    assert place.cluster.contents() == was or place.planned(*after) == ()
    assert any(body["metadata"]["uid"] == foreign["metadata"]["uid"] for body in place.cluster.objects.values())
