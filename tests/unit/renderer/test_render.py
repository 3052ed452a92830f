"""An answer is whole or it is an error that names everything wrong with it."""

from __future__ import annotations

import pytest

from renderer.errors import DocumentErrors
from renderer.manifest.normalize import content
from renderer.manifest.ownership import MANAGED_KEYS, OWNED_BY, is_owned, managed_keys, stamp
from renderer.manifest.policyset import PolicySet
from renderer.render import Source, render
from tests.support.policies import cluster_policy, desired, exception, identity_of

GOOD = """\
apiVersion: kyverno.io/v1
kind: ClusterPolicy
metadata:
  name: good
spec: {}
"""


def rendered(text: str) -> PolicySet:
    return render([Source(name="Insights", data=text.encode())])


def test_no_document_is_no_policy() -> None:
    assert len(rendered("")) == len(rendered("---\n---\n# nothing\n")) == 0


@pytest.mark.parametrize(
    ("document", "line", "said"),
    [
        ("just text", 7, "is text, not a policy"),
        ("- a\n- list", 7, "is a list, not a policy"),
        ("kind: ClusterPolicy\nmetadata: {name: x}", 7, "apiVersion: is missing"),
        ("apiVersion: kyverno.io/v1\nmetadata: {name: x}", 7, "kind: is missing"),
        ("apiVersion: kyverno.io/v1\nkind: ClusterPolicy", 7, "metadata: is missing"),
        ("apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {}", 9, "metadata.name: is missing"),
        (
            "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata:\n  name: 7",
            10,
            "metadata.name: is a number, not text",
        ),
        (
            "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata:\n  name: ../x",
            10,
            "is no Kubernetes name",
        ),
        (
            "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata:\n  name: Upper",
            10,
            "is no Kubernetes name",
        ),
        (f"apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata:\n  name: {'a' * 300}", 10, "300 characters"),
        ('apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata:\n  name: "a\\0b"', 10, "is no Kubernetes name"),
        (
            "apiVersion: kyverno.io/v1\nkind: Policy\nmetadata:\n  name: x\n  namespace: a/b",
            11,
            "is no Kubernetes name",
        ),
        (
            "apiVersion: kyverno.io/v1\nkind: UpdateRequest\nmetadata: {name: x}",
            8,
            "is not a kind that is managed here",
        ),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: x}", 7, "v1 Secret is not a policy"),
        (
            "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata:\n  name: x\n  labels: {a: 1}",
            11,
            "metadata.labels.a",
        ),
        (
            "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata:\n  name: x\n  annotations: [a]",
            11,
            "is a list, not a map",
        ),
        ("apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata:\n  generateName: x-", 9, "is not allowed"),
        ("a: [", 8, ""),
        ("a: 1\na: 2", 8, ""),
    ],
)
def test_one_bad_document_fails_the_answer_with_its_place(document: str, line: int, said: str) -> None:
    with pytest.raises(DocumentErrors) as caught:
        rendered(f"{GOOD}---\n{document}\n")
    (problem, *_) = caught.value.problems
    assert (problem.document, problem.line) == (2, line)
    assert said in str(caught.value)


def test_all_errors_are_in_one_report() -> None:
    with pytest.raises(DocumentErrors) as caught:
        rendered("a: [\n---\nkind: 1\n---\n" + GOOD + "---\n" + GOOD)
    assert [problem.document for problem in caught.value.problems] == [1, 2, 2, 2, 4]


def test_a_duplicate_names_both_places() -> None:
    with pytest.raises(DocumentErrors) as caught:
        render([Source(name="Insights", data=GOOD.encode()), Source(name="local.yaml", data=f"\n\n{GOOD}".encode())])
    message = str(caught.value)
    assert "Insights:" in message
    assert "local.yaml:6" in message


def test_equal_names_of_different_kinds_are_different_policies() -> None:
    assert len(desired(cluster_policy("x"), exception("x"), exception("x", namespace="other"))) == 3


def test_a_namespaced_policy_without_namespace_lands_in_default_and_shows_it() -> None:
    body = exception()
    del body["metadata"]["namespace"]
    (policy,) = desired(body)
    assert policy.body["metadata"]["namespace"] == "default" == policy.identity.namespace


def test_everything_is_stamped_as_owned_with_the_keys_that_were_set() -> None:
    (policy,) = desired(cluster_policy(labels={"tier": "one"}, annotations={"a": "1", "n": None}))
    assert is_owned(policy.body)
    assert policy.body["metadata"]["annotations"]["n"] == ""
    assert managed_keys(policy.body, "labels") == {"tier"}
    assert managed_keys(policy.body, "annotations") == {"a", "n", OWNED_BY, MANAGED_KEYS}
    assert stamp(policy.body) == policy.body


@pytest.mark.parametrize("owner", ["fairwinds insights", "Fairwinds Insights ", "", "true", None, 1])
def test_owned_means_the_exact_value(owner: object) -> None:
    assert not is_owned({"metadata": {"annotations": {OWNED_BY: owner}}})


def test_what_only_the_server_sets_is_not_rendered() -> None:
    body = cluster_policy(
        uid="u", resourceVersion="1", generation=3, creationTimestamp="x", managedFields=[], namespace="n"
    )
    found = content({**body, "status": {"ready": True}}, identity_of(body).kind)
    assert found == cluster_policy()


def test_the_record_of_keys_is_compact_and_readable() -> None:
    policy = cluster_policy(labels={"tier": "one", "größe": "two"}, annotations={"note": "x"})
    assert stamp(policy)["metadata"]["annotations"][MANAGED_KEYS] == (
        '{"annotations":["insights.fairwinds.com/managed-keys","insights.fairwinds.com/owned-by","note"],'
        '"labels":["größe","tier"]}'
    )


@pytest.mark.parametrize("metadata", [None, {}, {"annotations": None}, {"annotations": {MANAGED_KEYS: 1}}, "text"])
def test_what_records_nothing_is_nobodys(metadata: object) -> None:
    assert managed_keys({"metadata": metadata}, "labels") == frozenset()
    assert not is_owned({"metadata": metadata})


def test_keys_are_recorded_of_labels_and_annotations_only() -> None:
    with pytest.raises(ValueError, match="no such section of metadata: finalizers"):
        managed_keys(cluster_policy(), "finalizers")
