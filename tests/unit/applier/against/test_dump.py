"""What is read of a dump, and which one is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from applier.against import dump
from renderer.errors import DocumentErrors, ExitCode
from renderer.manifest import yamlio
from renderer.manifest.jsontypes import Json, JsonObject
from tests.support.json_values import values
from tests.support.policies import cluster_policy, exception, identity_of, live_object

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}}
ONE, TWO = live_object(cluster_policy("one")), live_object(exception("two", namespace="team-a"))


def as_list(*items: Json, **more: Json) -> JsonObject:
    return {"apiVersion": "v1", "items": list(items), "kind": "List", "metadata": {"resourceVersion": ""}, **more}


def names(found: dump.Dump) -> list[str]:
    return [str(policy.identity) for policy in found.policies]


def read(text: str | bytes) -> dump.Dump:
    return dump.read(text if isinstance(text, bytes) else text.encode(), source="live.yaml")


def test_every_form_that_kubectl_prints_is_read() -> None:
    expected = ["ClusterPolicy/one", "PolicyException.policies.kyverno.io/team-a/two"]
    listed = as_list(ONE, POD, TWO)
    for text in (
        yamlio.dump(listed),
        json.dumps(listed),
        json.dumps(listed, indent=4),
        "---\n".join(map(yamlio.dump, (ONE, POD, TWO))),
        yamlio.dump(as_list(ONE, POD)) + "---\n" + yamlio.dump(TWO),
    ):
        found = read(text)
        assert names(found) == expected
        assert found.ignored == 1
        assert [policy.body for policy in found.policies] == [ONE, TWO]
    assert names(read(yamlio.dump(ONE))) == expected[:1]
    assert read(yamlio.dump(as_list())) == dump.Dump(policies=(), ignored=0)


def test_a_list_of_the_api_says_once_what_its_items_are() -> None:
    bare = {key: value for key, value in ONE.items() if key not in ("apiVersion", "kind")}
    (policy,) = read(json.dumps(as_list(bare, kind="ClusterPolicyList", apiVersion="kyverno.io/v1"))).policies
    assert (policy.identity, policy.body) == (identity_of(cluster_policy("one")), ONE)


def test_managers_are_kept_only_as_the_server_writes_them() -> None:
    right: Json = [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}]
    for entries in (right, "x", [1], [{"manager": 1}], [{"fieldsV1": 1}]):
        body = {**ONE, "metadata": {**ONE["metadata"], "managedFields": entries}}
        (policy,) = read(yamlio.dump(body)).policies
        assert policy.body["metadata"].get("managedFields") == (right if entries is right else None)


def bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    return "\n".join(lines) + "\n"


WHOLE = yamlio.dump(as_list(ONE, TWO)).replace("kind: List\n", "").rstrip() + "\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("", "is empty", id="empty"),
        pytest.param("---\n# nothing\n", "is empty", id="comments"),
        pytest.param(WHOLE, "no kind List, which kubectl writes last: it was cut off", id="cut-off-before-its-end"),
        pytest.param(json.dumps(as_list(ONE))[:-40], "not YAML", id="cut-off-json"),
        pytest.param("items: [}\n", "not YAML", id="not-yaml"),
        pytest.param(b"\x1f\x8b\x08\x00\xff\xfe", "not UTF-8", id="gzip"),
        pytest.param("error: the server is away\n", "has no apiVersion or no kind", id="an-error-message"),
        pytest.param("Unable to connect to the server\n", "is no object of Kubernetes", id="text"),
        pytest.param(yamlio.dump([ONE]), "is no object of Kubernetes", id="a-plain-list"),
        pytest.param(yamlio.dump(as_list(ONE, None)), "items[1]: is no object", id="an-empty-item"),
        pytest.param(yamlio.dump(as_list({**ONE, "metadata": None})), "items[0].metadata: is missing", id="metadata"),
        pytest.param(yamlio.dump(as_list({**ONE, "metadata": {}})), "has no name", id="no-name"),
        pytest.param(yamlio.dump({**ONE, "metadata": {"name": 7}}), "metadata: has a name that is no text", id="name"),
        pytest.param(yamlio.dump({**ONE, "metadata": {"name": "a", "labels": [1]}}), "labels that", id="labels"),
        pytest.param(yamlio.dump({**ONE, "spec": None}), "spec: is missing", id="no-spec"),
        pytest.param(bomb(), "aliases", id="alias-bomb"),
        pytest.param("[" * 5000, "nesting depth", id="deep"),
        pytest.param(b"x" * (dump.LIMITS.bytes + 1), "more than the limit", id="huge"),
    ],
)
def test_what_is_no_dump_is_one_error(text: str | bytes, says: str) -> None:
    with pytest.raises(DocumentErrors) as caught:
        read(text)
    assert says in str(caught.value)
    assert str(caught.value).startswith("live.yaml: ")
    assert "kubectl get" in caught.value.hint
    assert caught.value.code is ExitCode.INPUT


def test_a_dump_cut_off_anywhere_in_its_policies_is_refused() -> None:
    whole = yamlio.dump({"apiVersion": "v1", "items": [ONE, TWO]}) + "kind: List\n"
    end = whole.index("kind: List")
    for cut in range(len("apiVersion: v1\nitems:\n-"), end, 7):
        with pytest.raises(DocumentErrors):
            read(whole[:cut])


def test_of_many_mistakes_the_first_are_told() -> None:
    with pytest.raises(DocumentErrors) as caught:
        read(json.dumps(as_list(*([1] * 1000))))
    assert len(caught.value.problems) == 20


@given(values)
def test_whatever_is_dumped_is_read_or_refused(value: Json) -> None:
    for document in (value, as_list(value), {**ONE, "metadata": value}, {**ONE, "spec": value}):
        try:
            found = read(json.dumps(document))
        except DocumentErrors:
            continue
        assert len(found.policies) + found.ignored >= 0
