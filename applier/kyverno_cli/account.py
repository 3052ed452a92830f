"""Decides what a run of the kyverno CLI says of each policy that it was given, and what has to be run again.

Nothing counts as judged but what the CLI is known to have loaded: silence is no proof.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from applier.kyverno_cli.output import Reading, Refusal, Result, explain, unknown_kind
from applier.verdict import Finding, Layer, Verdict
from renderer.manifest.document import Policy
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import Json, JsonObject
from renderer.manifest.kinds import ADMISSION, KYVERNO, POLICIES

#: Policies by the number that their files have.
Batch: TypeAlias = Sequence[tuple[int, Policy]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is settled by one run, the policies it loaded, and the batches that have to be run (again)."""

    verdict: Verdict
    loaded: Sequence[Policy] = ()
    again: Sequence[Batch] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A copy of a policy that matches the probe, so that the CLI compiles it.

    `conditional` says that it still has its own match conditions, which may keep it out of the report.
    """

    policy: Policy
    body: JsonObject
    conditional: bool = False


# How many policies of kyverno.io take the memory of one with CEL, and of them none has to be run again.
_LIGHTER: Final = 8
# Loaded, but neither counted nor looked at.
_UNCOUNTED: Final = frozenset(
    {
        (POLICIES, "PolicyException"),
        (ADMISSION, "ValidatingAdmissionPolicyBinding"),
        (ADMISSION, "MutatingAdmissionPolicyBinding"),
    }
)
_PROBE_RULES: Final[JsonObject] = {
    "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]
}
# With them, an error or the whole policy may stay out of the report.
_SILENCING: Final = frozenset({"evaluation", "failurePolicy"})
# Compiles, and fails on every object.
_FAILING_CONDITION: Final[JsonObject] = {"name": "kyverno-cli-probe", "expression": "object.notThere == true"}
# Kyverno's check asks a cluster for the scope of the target, and the CLI has none.
_NEEDS_A_CLUSTER: Final = re.compile(
    r"target namespace must be set for a namespaced resource|namespace is required for namespaced target"
)
# How the reasons begin that lie in the policy and the CLI's version, not in how a run went.
_UNKNOWN: Final = "the kyverno CLI does not know"
_NO_CLUSTER: Final = "the kyverno CLI cannot tell without a cluster"
_SCHEMA_ONLY: Final = "the kyverno CLI checks no more than the schema of"
_NO_MODE: Final = "the kyverno CLI does not compile policies of evaluation mode"
_SILENT: Final = "the kyverno CLI did not say that it loaded it"
_UNCLEAR: Final = "whether the kyverno CLI refuses it can't be made out"
_NOT_COMPILED: Final = (
    "the kyverno CLI compiles it only where it matches, and it matched nothing that it was tried with"
)


def batches(policies: Iterable[Policy], most: int) -> Iterator[Batch]:
    """Split policies into batches of at most `most`, kyverno.io (which may be more) apart from the CEL kinds.

    The first CEL error ends a run, which would hide the rest. What is known to crash the CLI comes alone.
    """
    numbered = list(enumerate(policies))
    fragile = [entry for entry in numbered if _fragile(entry[1])]
    alone = {number for number, _ in fragile}
    for legacy, size in ((True, most * _LIGHTER), (False, most)):
        group = [
            entry for entry in numbered if entry[0] not in alone and (entry[1].identity.kind.group == KYVERNO) is legacy
        ]
        for start in range(0, len(group), size):
            yield group[start : start + size]
    for entry in fragile:
        yield (entry,)


def settle(batch: Batch, reading: Reading) -> Step:
    """Decide what a run with a probe that policies rarely match says of each policy of the batch."""
    verdicts = [_dropped(policy, reading.dropped[n]) for n, policy in batch if n in reading.dropped]
    rest = [entry for entry in batch if entry[0] not in reading.dropped]
    if reading.crash:
        return _narrow(rest, verdicts, f"the kyverno CLI crashes on it ({reading.crash})")
    refusals = [*reading.skipped, *([reading.compile_error] if reading.compile_error else [])]
    reasons, sharing, strange = _attribute(rest, refusals)
    verdicts += [_refused(policy, reasons[number]) for number, policy in rest if number in reasons]
    settled = {*reasons, *(number for number, _ in sharing)}
    rest = [entry for entry in rest if entry[0] not in settled]
    again = _rounds(sharing)
    if strange or reading.other_error:
        words = strange[0].reason if strange else reading.other_error
        reason = f"the kyverno CLI stopped with: {explain(words)[1]}" if words else _UNCLEAR
        return _narrow(rest, verdicts, reason, again)
    if reading.compile_error:
        return Step(verdict=Verdict.together(verdicts), again=[*again, *([rest] if rest else [])])
    silent = {number for number, policy in rest if not _is_known(number, policy, reading)}
    verdicts.append(unjudged((policy for number, policy in rest if number in silent), _SILENT))
    rest = [entry for entry in rest if entry[0] not in silent]
    if not _adds_up(rest, reading):
        return _narrow(rest, verdicts, _SILENT, again)
    verdicts += [unjudged([policy], limit) for _, policy in rest if (limit := _limit(policy))]
    loaded = [policy for _, policy in rest if not _limit(policy)]
    return Step(verdict=Verdict.together(verdicts), loaded=loaded, again=again)


def as_stored(policy: Policy) -> JsonObject:
    """What the CLI is given: without what the server ignores and the CLI refuses.

    That is a status, and the namespace of a cluster-wide kind.
    """
    body = {key: value for key, value in unevaluated(policy).items() if key != "status"}
    metadata = {key: value for key, value in body["metadata"].items() if key != "namespace"}
    if policy.identity.namespace:
        metadata["namespace"] = policy.identity.namespace
    return body | {"metadata": metadata}


def unevaluated(policy: Policy) -> JsonObject:
    """Copy a policy so that the CLI compiles it but does not act on it, which may mean a call to a registry.

    Only image policies reach out; a condition that fails stops them after they were compiled.
    """
    spec = policy.body.get("spec")
    if not _is_image_policy(policy) or not isinstance(spec, dict):
        return policy.body
    conditions = spec.get("matchConditions") or []
    if not isinstance(conditions, list):
        return policy.body
    return policy.body | {"spec": spec | {"matchConditions": [_FAILING_CONDITION, *conditions]}}


def probes(policy: Policy) -> Iterator[Probe]:
    """Make the copies that show whether its CEL compiles; none for kinds that are compiled on loading.

    The CLI compiles these kinds only where they match, reports nothing where their own conditions don't hold,
    and looks no further than the first validation of a ValidatingAdmissionPolicy that does not hold.
    """
    if not _is_image_policy(policy) and policy.identity.kind.name != "ValidatingAdmissionPolicy":
        return
    spec = {key: value for key, value in policy.body["spec"].items() if key not in _SILENCING}
    spec["matchConstraints"] = _PROBE_RULES
    if spec.get("matchConditions"):
        yield _probe(policy, spec, conditional=True)
    spec = {key: value for key, value in spec.items() if key != "matchConditions"}
    validations = spec.get("validations") or []
    if _is_image_policy(policy) or not validations:
        yield _probe(policy, spec)
        return
    for validation in validations:
        yield _probe(policy, spec | {"validations": [validation]})


def settle_probes(
    tried: Sequence[tuple[int, Probe]], reading: Reading, rows: Sequence[Result]
) -> tuple[Verdict, Sequence[Sequence[tuple[int, Probe]]]]:
    """Decide what the reports say of the copies, and the batches of copies that have to be run again.

    Only whether they compile counts: what they say of the probe is no mistake of theirs.
    """
    ended = reading.crash or reading.other_error or (reading.compile_error and reading.compile_error.reason)
    if ended and len(tried) > 1:
        middle = len(tried) // 2
        return Verdict(), (tried[:middle], tried[middle:])
    if ended:
        policies = [probe.policy for _, probe in tried]
        return unjudged(policies, f"the kyverno CLI stopped with: {explain(ended)[1]}"), ()
    outcomes = {row.policy.rpartition("/")[2]: row for row in rows}
    found: dict[Identity, list[tuple[Probe, Result | None]]] = {}
    for number, probe in tried:
        result = outcomes.get(probe_name(number))
        found.setdefault(probe.policy.identity, []).append((probe, result))
    return Verdict.together(_compiled(results) for results in found.values()), ()


def probe_name(number: int) -> str:
    """Name the copy of that number so that reports tell copies apart."""
    return f"p{number}"


def unjudged(policies: Iterable[Policy], reason: str) -> Verdict:
    """Say that none of those could be judged, for that reason."""
    return Verdict(unjudged=tuple((policy.identity, reason) for policy in policies))


def lasts(reason: str) -> bool:
    """Whether the same CLI would give that reason again for the same policy, however the run goes."""
    return reason.startswith((_UNKNOWN, _NO_CLUSTER, _SCHEMA_ONLY, _NO_MODE))


def _probe(policy: Policy, spec: JsonObject, *, conditional: bool = False) -> Probe:
    copy = Policy(identity=policy.identity, body=policy.body | {"spec": spec})
    return Probe(policy=policy, body=unevaluated(copy), conditional=conditional)


def _is_image_policy(policy: Policy) -> bool:
    return policy.identity.kind.name.endswith("ImageValidatingPolicy")


def _compiled(found: Sequence[tuple[Probe, Result | None]]) -> Verdict:
    """Decide what the copies of one policy say of it."""
    policy = found[0][0].policy
    errors = {result.compile_error for _, result in found if result and result.compile_error}
    if errors:
        return Verdict.together(_refused(policy, error) for error in sorted(errors))
    if any(result is None for probe, result in found if not probe.conditional):
        return unjudged([policy], _NOT_COMPILED)
    return Verdict()


def _narrow(
    rest: Sequence[tuple[int, Policy]], verdicts: Sequence[Verdict], reason: str, again: Sequence[Batch] = ()
) -> Step:
    """Halve what a run left open; a policy that is alone with the reason cannot be judged."""
    if len(rest) <= 1:
        verdicts = [*verdicts, unjudged((policy for _, policy in rest), reason)]
        return Step(verdict=Verdict.together(verdicts), again=again)
    middle = len(rest) // 2
    return Step(verdict=Verdict.together(verdicts), again=[*again, rest[:middle], rest[middle:]])


def _dropped(policy: Policy, reason: str) -> Verdict:
    if unknown_kind(reason):
        kind = policy.identity.kind.name
        return unjudged([policy], f"{_UNKNOWN} {kind} in {policy.api_version}")
    return _refused(policy, reason)


def _refused(policy: Policy, reason: str) -> Verdict:
    if _NEEDS_A_CLUSTER.search(reason):
        return unjudged([policy], f"{_NO_CLUSTER}: {explain(reason)[1]}")
    path, message = explain(reason)
    finding = Finding(policy=policy.identity, layer=Layer.CLI, problem=policy.problem(message, *path))
    return Verdict(findings=(finding,))


def _attribute(
    rest: Sequence[tuple[int, Policy]], refusals: Iterable[Refusal]
) -> tuple[dict[int, str], list[tuple[int, Policy]], list[Refusal]]:
    """Sort refusals: reasons by number, the policies that share a refused name, the refusals that fit none.

    The CLI names policies without kind and namespace. A reason without a name is about a policy that is alone.
    """
    reasons: dict[int, str] = {}
    sharing: dict[int, Policy] = {}
    strange: list[Refusal] = []
    for refusal in refusals:
        alone = len(rest) == 1 and not refusal.name and bool(refusal.reason)
        named = [(number, policy) for number, policy in rest if alone or policy.identity.name == refusal.name]
        if len(named) == 1:
            reasons[named[0][0]] = refusal.reason
        else:
            sharing.update(named)
            strange += [] if named else [refusal]
    return reasons, list(sharing.items()), strange


def _rounds(sharing: Sequence[tuple[int, Policy]]) -> list[Batch]:
    """Spread policies over as few batches as keep those of one name apart."""
    rounds: list[dict[str, tuple[int, Policy]]] = []
    for entry in sharing:
        name = entry[1].identity.name
        free = next((names for names in rounds if name not in names), None)
        if free is None:
            free = {}
            rounds.append(free)
        free[name] = entry
    return [tuple(names.values()) for names in rounds]


def _is_known(number: int, policy: Policy, reading: Reading) -> bool:
    """Whether the CLI came to it, and named it where it names what it loads."""
    if policy.identity.kind.group == KYVERNO:
        return number in reading.visited and number in reading.announced
    return number in reading.visited and reading.rules is not None


def _adds_up(rest: Sequence[tuple[int, Policy]], reading: Reading) -> bool:
    """Whether the CLI counted every policy of the kinds in which each counts as one."""
    cel = [policy for _, policy in rest if policy.identity.kind.group != KYVERNO]
    return not cel or reading.rules == sum(map(_is_counted, cel))


def _is_counted(policy: Policy) -> bool:
    return (policy.identity.kind.group, policy.identity.kind.name) not in _UNCOUNTED


def _limit(policy: Policy) -> str:
    """Say why loading it proves nothing more than its schema, or ""."""
    kind = policy.identity.kind
    if not _is_counted(policy) or kind.name == "MutatingAdmissionPolicy":
        return f"{_SCHEMA_ONLY} a {kind.name}"
    mode = _at(policy.body, "spec", "evaluation", "mode")
    if mode in {"Envoy", "HTTP"} or (mode == "JSON" and _is_image_policy(policy)):
        return f"{_NO_MODE} {mode}"
    return ""


def _fragile(policy: Policy) -> bool:
    """Whether the CLI is known to crash on policies like this, valid or not."""
    kind = policy.identity.kind
    if kind.group == KYVERNO:
        return _at(policy.body, "spec", "webhookConfiguration", "matchConditions") is not None
    return kind.name == "NamespacedGeneratingPolicy"


def _at(body: Json, *path: str) -> Json:
    for key in path:
        body = body.get(key) if isinstance(body, dict) else None
    return body
