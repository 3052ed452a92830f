"""What follows from a run of the kyverno CLI: what is settled, what is run again, and what nobody vouches for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import pytest

from applier.kyverno_cli import account
from applier.kyverno_cli.account import Batch, Probe, Step
from applier.kyverno_cli.output import Reading, Refusal, Result
from applier.verdict import Verdict
from renderer.manifest import kinds
from renderer.manifest.document import Policy
from renderer.manifest.identity import Identity
from renderer.manifest.kinds import ADMISSION, KYVERNO, POLICIES

GROUPS: Final = {"ClusterPolicy": KYVERNO, "Policy": KYVERNO, "ValidatingAdmissionPolicy": ADMISSION}


def policy(name: str, kind: str = "ClusterPolicy", *, namespace: str = "", **spec: Any) -> Policy:
    group = GROUPS.get(kind, POLICIES)
    found = kinds.find(group, kind)
    assert found is not None
    body = {"apiVersion": f"{group}/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return Policy(identity=Identity(kind=found, namespace=namespace, name=name), body=body)


def cel(name: str, **spec: Any) -> Policy:
    return policy(name, "ValidatingPolicy", **spec)


def batch(*policies: Policy) -> Batch:
    return list(enumerate(policies))


def reading(count: int, **said: Any) -> Reading:
    """A run that came to all of them and loaded all of them, but for what is said."""
    numbers = frozenset(range(count))
    return Reading(
        **{"visited": numbers, "dropped": {}, "announced": numbers, "rules": count, "finished": True, **said}
    )


def names(entries: Iterable[tuple[int, Policy]]) -> list[str]:
    return [each.identity.name for _, each in entries]


def refused(verdict: Verdict) -> list[str]:
    return [finding.policy.name for finding in verdict.findings]


def unjudged(verdict: Verdict) -> list[str]:
    return [identity.name for identity, _ in verdict.unjudged]


def again(step: Step) -> list[list[str]]:
    return [names(each) for each in step.again]


A, B, C, D = (policy(name) for name in "abcd")


def test_legacy_and_cel_kinds_run_apart_and_fragile_ones_alone() -> None:
    fragile = policy("d", webhookConfiguration={"matchConditions": []})
    generating = policy("e", "NamespacedGeneratingPolicy", namespace="n")
    made = account.batches([cel("x"), A, fragile, B, generating, cel("y"), cel("z"), C], 2)
    assert [names(each) for each in made] == [["a", "b", "c"], ["x", "y"], ["z"], ["d"], ["e"]]


def test_a_batch_of_legacy_kinds_is_larger_but_has_an_end() -> None:
    assert [len(each) for each in account.batches([A] * 20, 2)] == [16, 4]


def test_numbers_are_unique_over_all_batches() -> None:
    numbers = [number for each in account.batches([A, cel("x"), B, C], 1) for number, _ in each]
    assert sorted(numbers) == [0, 1, 2, 3]


def test_what_was_loaded_without_a_complaint_is_settled() -> None:
    step = account.settle(batch(A, B), reading(2))
    assert step == Step(verdict=Verdict(), loaded=[A, B], again=[])


def test_what_was_dropped_is_refused_and_the_rest_stands() -> None:
    step = account.settle(batch(A, B), reading(2, dropped={0: "spec.x: Invalid value: unknown"}))
    assert refused(step.verdict) == ["a"]
    assert step.loaded == [B]
    assert not step.again


def test_legacy_that_was_not_announced_is_unjudged() -> None:
    step = account.settle(batch(A, B), reading(2, announced=frozenset({1})))
    assert unjudged(step.verdict) == ["a"]
    assert step.loaded == [B]


def test_what_was_not_visited_is_unjudged() -> None:
    step = account.settle(batch(A, B), reading(2, visited=frozenset({0})))
    assert unjudged(step.verdict) == ["b"]


def test_cel_without_a_count_is_unjudged() -> None:
    step = account.settle(batch(cel("x"), cel("y")), reading(2, rules=None))
    assert unjudged(step.verdict) == ["x", "y"]
    assert not step.loaded


@pytest.mark.parametrize("rules", [1, 3])
def test_a_count_that_does_not_add_up_is_narrowed_down(rules: int) -> None:
    step = account.settle(batch(cel("x"), cel("y")), reading(2, rules=rules))
    assert again(step) == [["x"], ["y"]]
    assert not step.loaded
    alone = account.settle(batch(cel("x")), reading(1, rules=0))
    assert unjudged(alone.verdict) == ["x"]
    assert not alone.again


def test_bindings_are_not_counted_and_not_judged() -> None:
    binding = policy("b", "PolicyException", namespace="n")
    step = account.settle(batch(cel("x"), binding), reading(2, rules=1))
    assert unjudged(step.verdict) == ["b"]
    assert names(enumerate(step.loaded)) == ["x"]


def test_a_crash_is_halved_until_one_is_alone() -> None:
    crashed = reading(4, crash="panic: x", finished=False, dropped={3: "spec: bad"})
    step = account.settle(batch(A, B, C, D), crashed)
    assert refused(step.verdict) == ["d"]
    assert again(step) == [["a"], ["b", "c"]]
    alone = account.settle(batch(A), reading(1, crash="panic: x", finished=False))
    assert alone.verdict.unjudged == ((A.identity, "the kyverno CLI crashes on it (panic: x)"),)
    assert not alone.again


def test_the_rest_runs_again_after_a_compile_error() -> None:
    policies = batch(cel("x"), cel("y"), cel("z"))
    stopped = reading(3, compile_error=Refusal(name="y", reason="spec: no"), finished=False)
    step = account.settle(policies, stopped)
    assert refused(step.verdict) == ["y"]
    assert again(step) == [["x", "z"]]
    assert not step.loaded


def test_an_end_without_a_name_is_narrowed_down() -> None:
    step = account.settle(batch(A, B), reading(2, other_error="no such kind", finished=False))
    assert again(step) == [["a"], ["b"]]
    alone = account.settle(batch(A), reading(1, other_error="no such kind", finished=False))
    assert alone.verdict.unjudged == ((A.identity, "the kyverno CLI stopped with: no such kind"),)


def test_a_name_that_was_not_given_vouches_for_nobody() -> None:
    step = account.settle(batch(A, B), reading(2, skipped=(Refusal(name="other", reason="bad"),)))
    assert again(step) == [["a"], ["b"]]
    assert not step.loaded


def test_a_reason_without_a_name_is_about_the_policy_that_is_alone() -> None:
    nameless = Refusal(name="", reason="bad")
    assert again(account.settle(batch(A, B), reading(2, skipped=(nameless,)))) == [["a"], ["b"]]
    step = account.settle(batch(A), reading(1, skipped=(nameless,)))
    assert refused(step.verdict) == ["a"]
    assert not step.loaded


def test_a_list_that_cannot_be_made_out_leaves_a_policy_unjudged() -> None:
    step = account.settle(batch(A), reading(1, skipped=(Refusal(name="", reason=""),)))
    assert [identity.name for identity, _ in step.verdict.unjudged] == ["a"]
    assert not step.loaded


def test_policies_that_share_a_refused_name_run_again_apart() -> None:
    same = [policy("same", "Policy", namespace=namespace) for namespace in ("n", "m")]
    skipped = (Refusal(name="same", reason="bad"), Refusal(name="a", reason="bad"))
    step = account.settle(batch(*same, A, B), reading(4, skipped=skipped))
    assert refused(step.verdict) == ["a"]
    assert again(step) == [["same"], ["same"]]
    assert step.loaded == [B]


def test_policies_that_share_a_name_that_nobody_refused_are_settled() -> None:
    same = [policy("same", "Policy", namespace=namespace) for namespace in ("n", "m")]
    assert account.settle(batch(*same), reading(2)).loaded == same


def test_only_kinds_that_are_compiled_where_they_match_have_copies() -> None:
    assert list(account.probes(A)) == []
    assert list(account.probes(cel("x", validations=[{"expression": "true"}]))) == []


def test_each_validation_of_a_built_in_policy_has_its_copy() -> None:
    validations = [{"expression": "a"}, {"expression": "b"}]
    judged = policy("v", "ValidatingAdmissionPolicy", validations=validations, matchConditions=[{"name": "c"}])
    copies = list(account.probes(judged))
    assert [copy.conditional for copy in copies] == [True, False, False]
    assert [copy.body["spec"]["validations"] for copy in copies] == [validations, validations[:1], validations[1:]]
    assert "matchConditions" not in copies[1].body["spec"]
    assert all(copy.policy is judged for copy in copies)


def test_a_copy_of_an_image_policy_is_never_acted_on() -> None:
    own = [{"name": "own", "expression": "true"}]
    judged = policy("i", "ImageValidatingPolicy", matchConditions=own, failurePolicy="Ignore")
    for copy in account.probes(judged):
        first, *rest = copy.body["spec"]["matchConditions"]
        assert first["expression"] == "object.notThere == true"
        assert rest == (own if copy.conditional else [])
        assert "failurePolicy" not in copy.body["spec"]
    assert judged.body["spec"]["matchConditions"] == own


def row(number: int, outcome: str, message: str = "") -> Result:
    return Result(policy=f"n/p{number}", outcome=outcome, message=message)


def test_what_the_probe_makes_of_a_policy_is_no_mistake() -> None:
    tried = [(0, Probe(policy=A, body={})), (1, Probe(policy=B, body={}))]
    rows = [row(0, "fail", "set the label"), row(1, "error", "failed to evaluate policy: no such key")]
    assert account.settle_probes(tried, reading(2), rows) == (Verdict(), ())


def test_one_copy_that_does_not_compile_is_enough() -> None:
    tried = [(0, Probe(policy=A, body={}, conditional=True)), (1, Probe(policy=A, body={}))]
    rows = [row(0, "error", "failed to compile policy: spec.x: bad"), row(1, "pass")]
    verdict, _ = account.settle_probes(tried, reading(2), rows)
    (finding,) = verdict.findings
    assert (finding.problem.field, finding.problem.message) == ("spec.x", "bad")


def test_only_a_conditional_copy_may_stay_out_of_the_report() -> None:
    conditional, plain = Probe(policy=A, body={}, conditional=True), Probe(policy=A, body={})
    assert account.settle_probes([(0, conditional), (1, plain)], reading(2), [row(1, "pass")])[0] == Verdict()
    verdict, _ = account.settle_probes([(0, conditional), (1, plain)], reading(2), [row(0, "pass")])
    assert unjudged(verdict) == ["a"]


def test_copies_that_crash_are_halved_until_one_is_alone() -> None:
    tried = [(number, Probe(policy=each, body={})) for number, each in batch(A, B)]
    crashed = reading(2, crash="panic: x", finished=False)
    assert account.settle_probes(tried, crashed, []) == (Verdict(), (tried[:1], tried[1:]))
    verdict, rest = account.settle_probes(tried[:1], crashed, [])
    assert unjudged(verdict) == ["a"]
    assert rest == ()
