"""What holds for the effect of any change, over Kyverno's own policies and what chance makes of them."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ci.testbed import corpus, toolchain
from renderer.manifest.effect import Direction, Effect, compare, enforces
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.kinds import Kind

Corpus = dict[Kind, list[JsonObject]]
_BLOCKS: Final = ("ClusterPolicy", "Policy", "CleanupPolicy", "ClusterCleanupPolicy")


@pytest.fixture(scope="module")
def real() -> Corpus:
    """The policies of Kyverno's source by kind; too few would mean that they are not found."""
    found: Corpus = {}
    for policy in corpus.policies(toolchain.kyverno_source()):
        found.setdefault(policy.identity.kind, []).append(policy.body)
    assert len(found) > 15
    assert sum(map(len, found.values())) > 1500
    return found


def moves(effect: Effect) -> Counter[Direction]:
    """How often each direction; neutral changes move nothing and need not be there on the way back."""
    return Counter(change.direction for change in effect.changes if change.direction is not Direction.NEUTRAL)


def back(directions: Counter[Direction]) -> Counter[Direction]:
    return Counter({direction.opposite: count for direction, count in directions.items()})


def check_both_ways(before: JsonObject | None, after: JsonObject | None, kind: Kind) -> None:
    there, home = compare(before, after, kind), compare(after, before, kind)
    assert moves(home) == back(moves(there))
    assert (there.tightens, there.loosens) == (home.loosens, home.tightens)
    assert there.enforced_before is home.enforces_after is enforces(before, kind)
    for effect in (there, home):
        assert list(effect.changes) == sorted(effect.changes, key=lambda change: not change.weakens)
        assert effect.summary.count("\n") == 0
        for change in effect.changes:
            assert change.sentence
            assert change.path.startswith("spec")


def test_no_change_has_no_effect(real: Corpus) -> None:
    for kind, bodies in real.items():
        for body in bodies:
            assert not compare(body, copy.deepcopy(body), kind).changes


def test_any_policy_can_take_the_place_of_any_other_and_back(real: Corpus) -> None:
    for kind, bodies in real.items():
        for step in (1, 7):
            for before, after in zip(bodies, bodies[step:], strict=False):
                check_both_ways(before, after, kind)


def test_to_delete_what_enforces_weakens_and_to_create_it_tightens(real: Corpus) -> None:
    for kind, bodies in real.items():
        for body in bodies:
            check_both_ways(body, None, kind)
            if enforces(body, kind):
                assert compare(body, None, kind).weakens
                created = compare(None, body, kind)
                assert created.tightens or created.changes[0].direction is Direction.UNKNOWN
                assert not created.weakens


FILTERS: Final = st.fixed_dictionaries(
    {},
    optional={
        "kinds": st.lists(st.sampled_from(["Pod", "apps/v1/Deployment", "*", "Pod/exec"]), max_size=2),
        "namespaces": st.lists(st.sampled_from(["kube-*", "a", "*", "?"]), max_size=2),
        "names": st.lists(st.sampled_from(["a*", "b"]), max_size=2),
        "operations": st.lists(st.sampled_from(["CREATE", "DELETE"]), max_size=2),
        "selector": st.just({"matchLabels": {"a": "*"}}),
    },
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(resources=FILTERS)
def test_to_exclude_something_never_tightens(real: Corpus, resources: JsonObject) -> None:
    """Neither as a new `exclude` nor as one more filter of an `any` that is there."""
    added = {"resources": resources}
    for kind, bodies in real.items():
        for body in bodies[:40] if kind.name in _BLOCKS else []:
            after = copy.deepcopy(body)
            spec = after.get("spec") or {}
            for holder in [spec, *spec.get("rules", [])]:
                if "match" in holder and set(holder.get("exclude") or {"any": 1}) == {"any"}:
                    holder["exclude"] = {"any": [*(holder.get("exclude") or {}).get("any", []), added]}
            effect = compare(body, after, kind)
            assert not effect.tightens
            if effect.enforced_before and any(change.enforced for change in effect.changes):
                assert effect.weakens


def test_to_exclude_resources_from_a_cel_policy_never_tightens(real: Corpus) -> None:
    rule = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["secrets"]}
    seen = 0
    for kind, bodies in real.items():
        for body in bodies:
            if not ((body.get("spec") or {}).get("matchConstraints") or {}).get("resourceRules"):
                continue
            after = copy.deepcopy(body)
            excluded = after["spec"]["matchConstraints"].setdefault("excludeResourceRules", [])
            excluded.append(rule)
            effect = compare(body, after, kind)
            assert effect.may_loosen
            assert not effect.tightens
            assert effect.weakens is enforces(body, kind)
            seen += 1
    assert seen > 300


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a", "*", "Enforce", "Deny"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["any", "a"]), inner, max_size=2),
    max_leaves=4,
)


def mangled(value: Json, data: st.DataObject) -> Json:
    """The same with one part, wherever, replaced or taken away."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not keys or data.draw(st.integers(0, 6)) == 0:
        return data.draw(JSON)
    key = data.draw(st.sampled_from(keys))
    if data.draw(st.integers(0, 9)) == 0:
        del value[key]
    else:
        value[key] = mangled(value[key], data)
    return value


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_body_has_an_effect_and_none_is_an_accident(real: Corpus, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(real)))
    before = data.draw(st.sampled_from(real[kind]))
    after = {**before, "spec": mangled(copy.deepcopy(before.get("spec")), data)}
    check_both_ways(before, after, kind)
    check_both_ways(after, None, kind)
    assert not compare(after, after, kind).changes
