"""Reviews to show, made as `plan --against` and `validate --offline` make them, with something of everything."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from applier import against, offline_schemas, pipeline
from applier.against import Saved
from applier.guards.refusals import Allowed
from applier.impact.model import Affected, Effect, Impact, NotEvaluated, Resource, in_order
from applier.pipeline import Checks
from applier.report.document import Basis
from applier.report.review import Review
from applier.report.validation import Validation
from renderer import snapshot
from renderer.manifest.jsontypes import JsonObject
from tests.support.policies import cluster_policy, desired, generating_rule, validating_policy

#: Words that would leave their place in one format or another.
HOSTILE = (
    "<script>alert(1)</script> @acme/everyone #1 https://evil.example/ ``` </details>\n::error::no\n/close\r]]> & \x07 "
    "[click](javascript:alert(1)) \u202e 漢字"
)

#: A name that a manifest in a directory may have, whatever Kubernetes thinks of it.
HOSTILE_NAME = "a|b\n| c | `d` \\| <script>alert(1)</script> ::error::x @acme/everyone ]]> \x07"


def owned(body: JsonObject, number: int, **metadata: Any) -> JsonObject:
    """The object as a dump of a cluster has it, with a UID that is always the same."""
    (policy,) = desired(body)
    server = {"uid": f"00000000-0000-4000-8000-{number:012}", "resourceVersion": "7"}
    return {**policy.body, "metadata": {**policy.body["metadata"], **server, **metadata}}


def rule(name: str, action: str, *kinds: str, message: str = "Set the label team.") -> JsonObject:
    """A ClusterPolicy whose one rule has that action and matches those kinds."""
    body = cluster_policy(name, message=message)
    del body["spec"]["validationFailureAction"]
    body["spec"]["rules"][0]["validate"]["failureAction"] = action
    body["spec"]["rules"][0]["match"] = {"any": [{"resources": {"kinds": list(kinds or ["Namespace"])}}]}
    return body


def _held() -> list[JsonObject]:
    foreign = owned(rule("foreign", "Audit"), 7)
    foreign["metadata"].pop("annotations")
    drifted = {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": {}}}
    return [
        owned(rule("weakened", "Enforce"), 1, managedFields=[drifted]),
        owned(rule("enforced", "Audit"), 2),
        owned(rule("narrowed", "Enforce", "Namespace", "ConfigMap"), 3),
        owned(rule("gone", "Enforce"), 4),
        owned(generating_rule("generates"), 5),
        owned(rule("same", "Enforce"), 6),
        foreign,
    ]


def _wanted() -> list[JsonObject]:
    background = rule("enforced", "Enforce")
    background["spec"]["background"] = False
    wrong = validating_policy("wrong")
    wrong["spec"]["validationAction"] = wrong["spec"].pop("validationActions")
    return [
        rule("weakened", "Audit", message=HOSTILE),
        background,
        rule("narrowed", "Enforce"),
        rule("same", "Enforce"),
        rule("foreign", "Enforce"),
        validating_policy("new"),
        wrong,
        {
            "apiVersion": "kyverno.io/v2",
            "kind": "PolicyException",
            "metadata": {"name": "exempt", "namespace": "default"},
            "spec": {
                "exceptions": [{"policyName": "same", "ruleNames": ["team"]}],
                "match": {"any": [{"resources": {"kinds": ["Namespace"]}}]},
            },
        },
    ]


def written(directory: Path, *bodies: JsonObject) -> Path:
    """A snapshot of these policies in that directory."""
    files = snapshot.render_files(desired(*bodies), organization="acme", cluster="prod")
    snapshot.write(directory, files)
    return directory


def a_plan(directory: Path, *wanted: JsonObject, held: list[JsonObject] | None = None) -> Review:
    """A plan of these policies (else of some with something of everything) for those that are held."""
    folder = written(directory / "snapshot", *(wanted or _wanted()))
    dump = directory / "cluster.json"
    dump.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": _held() if held is None else held}))
    read = snapshot.read(folder)
    saved = against.read(str(dump), folder, list(read.policies))
    made = pipeline.compare(saved, read.policies, allowed=Allowed(), notes=saved.notes)
    basis = Basis(server=None, snapshot=read, commit="0123456789abcdef0123456789abcdef01234567")
    return Review(plan=made.plan, verdict=made.verdict, basis=basis, where="against cluster.json")


def with_impact(review: Review) -> Review:
    """The same with what it would do to what is there, some of it by hostile names."""
    return replace(review, impact=Impact(source="the cluster", policies=4, resources=512, **_impact_of(review)))


def _impact_of(review: Review) -> Any:
    policies = {change.identity.name: change.identity for change in review.plan.changes}
    found = [
        (
            Effect.BLOCKED,
            "enforced",
            "team",
            Resource(kind="Namespace", namespace="", name="shop"),
            "Set the label team.",
        ),
        *(
            (
                Effect.BLOCKED,
                "enforced",
                "team",
                Resource(kind="Pod", namespace="shop", name=f"web-{number}", api_version="v1", alike=number),
                "Set the label team.",
            )
            for number in range(7)
        ),
        (
            Effect.BLOCKED,
            "enforced",
            "no rule of it | any more",
            Resource(kind="Po|d", namespace=HOSTILE_NAME, name=HOSTILE_NAME, api_version="v1"),
            HOSTILE,
        ),
        (Effect.REPORTED, "new", "", Resource(kind="ConfigMap", namespace="shop", name="settings"), "It needs labels."),
        (
            Effect.LET_THROUGH,
            "gone",
            "team",
            Resource(kind="Namespace", namespace="", name="lab"),
            "Set the label team.",
        ),
    ]
    affected = [
        Affected(effect=effect, policy=policies[policy], rule=rule, resource=resource, message=message)
        for effect, policy, rule, resource, message in found
    ]
    left_out = (
        NotEvaluated(reason="secrets are never fetched", subjects=("secrets",)),
        NotEvaluated(reason="this account may not list them", subjects=(HOSTILE_NAME, "services")),
    )
    return {"affected": in_order(affected), "not_evaluated": left_out}


def with_many(review: Review, *, count: int = 30_000, namespaces: int = 3_000) -> Review:
    """The same where one rule blocks so many: the more, the higher the number of their namespace."""
    (policy,) = (change.identity for change in review.plan.changes if change.identity.name == "enforced")
    affected = [
        Affected(
            effect=Effect.BLOCKED,
            policy=policy,
            rule="team",
            resource=Resource(
                kind="ConfigMap", namespace=f"ns-{max(number % namespaces, number % 7)}", name=f"c-{number}"
            ),
            message=HOSTILE * 20,
        )
        for number in range(count)
    ]
    return replace(
        review, impact=Impact(source="the cluster", policies=1, resources=count, affected=in_order(affected))
    )


def a_validation(directory: Path, *wanted: JsonObject) -> Review:
    """What `validate --offline` finds in the same policies."""
    read = snapshot.read(written(directory / "snapshot", *(wanted or _wanted())))
    nothing = Saved.nothing(offline_schemas.load())
    made = pipeline.compare(
        nothing,
        read.policies,
        allowed=Allowed(adopt=True, empty=True, weaken=True, replace=True),
        checks=Checks(unchanged=True),
        prune=False,
        notes=nothing.notes,
    )
    found = Validation(
        policies=tuple(policy.identity for policy in read.policies),
        verdict=made.verdict,
        unchecked=frozenset(pipeline.unchecked(read.policies, made.plan, made.verdict, by_cli=False)),
        notes=made.plan.notes,
        by_cli=False,
    )
    basis = Basis(server=None, snapshot=read)
    return Review(plan=made.plan, verdict=made.verdict, basis=basis, where="with no cluster", validation=found)
