"""Plans to show: one as a review of the baseline would make it, one of many changes, and one of hostile policies."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Final

from applier import diff
from applier.change import Action, Change, Plan, Refused
from applier.impact.model import Affected, Effect, Impact, NotEvaluated, Resource
from applier.report.document import Basis
from applier.report.review import Review
from applier.verdict import Finding, Layer, Verdict
from renderer import snapshot
from renderer.errors import ExitCode, Problem
from renderer.manifest import kinds, yamlio
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content
from tests.support.policies import cluster_policy

SNAPSHOT: Final = Path(__file__).parents[2] / "policies" / "snapshot"
_NOTHING_SAID: Final = Verdict()
#: What a policy's author may write to break the page, or to make it look like something else.
HOSTILE: Final = (
    "<script>window.broken = 1</script>",
    "</script><script>window.broken = 1</script>",
    "</style><img src=x onerror=window.broken=1>",
    '" onmouseover="window.broken=1" x=\'',
    "]]><!-- {{ 7 * 7 }} {% raw %} &lt;b&gt; &amp;",
    "pass \u202e nigol \u2066 \u200b hidden \u0000",
    "javascript:window.broken=1",
)


def identity(body: JsonObject) -> Identity:
    """The identity of a policy, whatever its name holds."""
    kind = kinds.find(body["apiVersion"].rpartition("/")[0], body["kind"])
    assert kind is not None
    return Identity(kind=kind, namespace=body["metadata"].get("namespace", ""), name=body["metadata"]["name"])


def change(
    before: JsonObject | None, after: JsonObject | None, action: Action | None = None, reason: str = ""
) -> Change:
    """The change that leads from the one to the other."""
    named = identity(after or before or {})
    usual = Action.CREATE if before is None else Action.DELETE if after is None else Action.UPDATE
    patch: tuple[JsonObject, ...] = ()
    if before and after:
        patch = diff.patch(*(content(body, named.kind) for body in (before, after)))
    return Change(identity=named, action=action or usual, before=before, after=after, patch=patch, reason=reason)


def baseline(name: str) -> JsonObject:
    """A policy of the project's own baseline."""
    (path,) = SNAPSHOT.rglob(f"{name}.yaml")
    return _read(path)


def _read(path: Path) -> JsonObject:
    (document,) = yamlio.load(path.read_bytes(), source=path.name)
    body: JsonObject = document.value
    return body


def edited(name: str, edit: Callable[[JsonObject], object]) -> Change:
    """An update that leads from the baseline to what `edit` makes of it."""
    before = baseline(name)
    after = copy.deepcopy(before)
    edit(after["spec"])
    return change(before, after)


def review() -> Plan:
    """A change as people send it: a bit of everything, most of it harmless."""
    changes = (
        edited("pod-security-restricted", _loosened),
        edited("image-registries", _more_registries),
        edited("ingress-hosts", lambda spec: spec.update(validationActions=["Deny"])),
        edited("namespace-budget", _bigger_budget),
        edited("pod-capabilities", _other_words),
        change(None, baseline("node-exporter")),
        change(None, baseline("image-tags")),
        change(baseline("service-external-names"), None),
        change(
            baseline("pod-sysctls") | {"spec": _reporting(baseline("pod-sysctls")["spec"])},
            baseline("pod-sysctls"),
            Action.REFUSED,
            "a policy of this identity is not owned by Insights",
        ),
        *(
            change(body, body, Action.UNCHANGED)
            for body in map(baseline, ("ingress-tls", "pod-seccomp", "finished-jobs"))
        ),
    )
    refusal = Refused(
        code=ExitCode.NOT_OWNED,
        message="1 policy exists that Insights does not own.",
        hint="Use --adopt to take it over.",
        subjects=("ValidatingPolicy/pod-sysctls",),
    )
    notes = ("2 changes take away something that denies requests; apply needs --allow-weaken for them",)
    return Plan(changes=changes, refusals=(refusal,), notes=notes)


SERVER: Final = "https://cluster.example:6443"


def reviewed(
    plan: Plan, verdict: Verdict = _NOTHING_SAID, *, where: str = f"on {SERVER}", commit: str | None = None
) -> Review:
    """The plan as reports get it, made from the baseline's snapshot."""
    basis = Basis(server=SERVER, snapshot=_snapshot(), commit=commit)
    return Review(plan=plan, verdict=verdict, basis=basis, where=where)


@functools.cache
def _snapshot() -> snapshot.Snapshot:
    return snapshot.read(SNAPSHOT)


def verdict() -> Verdict:
    """What validation says of that change."""
    named = identity(baseline("image-registries"))
    problem = Problem(
        source="validatingpolicies.policies.kyverno.io/image-registries.yaml",
        line=43,
        policy=str(named),
        field="spec.variables[1].expression",
        message="the list is longer than the message can show",
    )
    return Verdict(findings=(Finding(policy=named, layer=Layer.SERVER, problem=problem, warning=True),))


def impact() -> Impact:
    """What it would do to what runs."""
    hosts = "A wildcard host takes requests that belong to other Ingresses. List the hosts one by one in spec.rules."
    return Impact(
        source="the cluster",
        policies=2,
        resources=17,
        affected=tuple(
            Affected(
                effect=Effect.BLOCKED,
                policy=identity(baseline("ingress-hosts")),
                rule="ingress-hosts",
                resource=Resource(kind="Ingress", namespace=namespace, name=name),
                message=hosts,
            )
            for namespace, name in (("search", "public"), ("shop", "assets"), ("shop", "front"))
        ),
        not_evaluated=(NotEvaluated(reason="this account may not list them", subjects=("gateways.example.org",)),),
    )


def many(count: int = 500) -> Plan:
    """So many updates, each of a policy of ordinary length with some edits all over it, and creates among them."""
    bodies = [_read(path) for path in sorted(SNAPSHOT.rglob("*/*.yaml"))]
    changes = []
    for number in range(count):
        before = copy.deepcopy(bodies[number % len(bodies)])
        before["metadata"]["name"] = f"{before['metadata']['name']}-{number:03}"
        after = copy.deepcopy(before)
        after["metadata"]["annotations"]["policies.kyverno.io/severity"] = "critical"
        after["metadata"]["annotations"]["policies.kyverno.io/description"] += " Edited here."
        if number % 3 == 0 and "validationActions" in after["spec"]:
            after["spec"]["validationActions"] = ["Deny"]
        after["spec"]["matchConditions"] = [
            {"name": f"new-{n}", "expression": f"object.kind != 'K{n}'"} for n in range(6)
        ]
        changes.append(change(None, after) if number % 5 == 4 else change(before, after))
    return Plan(changes=tuple(changes))


def hostile() -> Plan:
    """Policies whose every text tries to break out."""
    changes = []
    for number, text in enumerate(HOSTILE):
        before = cluster_policy(f"hostile-{number}", message="plain")
        after = cluster_policy(f"hostile-{number}", message=text, annotations={f"key{number}": text, text: "value"})
        after["spec"]["rules"][0]["name"] = text
        changes.append(change(before, after, reason=text))
        changes.append(change(None, cluster_policy(text, message=text)))
    refusal = Refused(code=ExitCode.NOT_OWNED, message=HOSTILE[0], hint=HOSTILE[2], subjects=HOSTILE)
    return Plan(changes=tuple(changes), refusals=(refusal,), notes=HOSTILE)


def _reporting(spec: JsonObject) -> JsonObject:
    return {**spec, "validationActions": ["Audit", "Warn"], "failurePolicy": "Fail"}


def _loosened(spec: JsonObject) -> None:
    rule = spec["rules"][0]
    rule["validate"]["failureAction"] = "Audit"
    rule["validate"]["message"] = rule["validate"]["message"].replace("takes restricted", "should take restricted")
    rule["exclude"]["any"][0]["resources"]["namespaces"].append("monitoring")


def _more_registries(spec: JsonObject) -> None:
    known = spec["variables"][1]
    known["expression"] = known["expression"].replace("  'quay.io/',\n", "  'ghcr.io/acme/',\n  'quay.io/acme/',\n")
    spec["matchConstraints"]["namespaceSelector"]["matchExpressions"][0]["values"].append("sandbox")


def _bigger_budget(spec: JsonObject) -> None:
    template = spec["generate"][0]["template"]
    template["value"] = template["value"].replace('pods: "100"', 'pods: "250"').replace("64Gi", "128Gi")


def _other_words(spec: JsonObject) -> None:
    spec["validations"][1]["messageExpression"] = spec["validations"][1]["messageExpression"].replace(
        "may be in", "is allowed in"
    )
