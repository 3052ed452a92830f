"""The fields of each kind of policy that have a meaning here, and what more or less of each one does.

One table for each kind of rule: what is not in its table, and differs, is a change of unknown direction.
Fields and defaults are those of Kyverno 1.19.1's Go types (kyverno/v1 Spec, Rule, Validation,
ImageVerification, Mutation, Generation; kyverno/v2 CleanupPolicySpec, PolicyExceptionSpec;
policies.kyverno.io/v1alpha1, whose types the later versions share) and of admissionregistration.k8s.io/v1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from renderer.manifest.effect import covering, matching
from renderer.manifest.effect.covering import Covers, both, contains, ladder, mapping, texts
from renderer.manifest.effect.facets import Direction, Facet, What, facet
from renderer.manifest.jsontypes import Json

_BOOL: Final = ladder(False, True)  # noqa: FBT003 - the steps of a ladder
_UNLESS: Final = ladder(True, False)  # noqa: FBT003 - the same, for a field that takes something away
_W: Final = What
_L, _N = Direction.LOOSENS, Direction.NEUTRAL

_ENFORCES: Final = (_W.ENFORCES_MORE, _W.ENFORCES_LESS, _W.ENFORCES_OTHERWISE)
_RELAXES: Final = (_W.ENFORCES_LESS, _W.ENFORCES_MORE, _W.ENFORCES_OTHERWISE)
_MATCHES: Final = (_W.MATCHES_MORE, _W.MATCHES_LESS, _W.MATCHES_OTHERWISE)
_EXCLUDES: Final = (_W.EXCLUDES_MORE, _W.EXCLUDES_LESS, _W.EXCLUDES_OTHERWISE)
_MUTATES: Final = (_W.MUTATES, _W.NO_LONGER_MUTATES, _W.MUTATES_OTHERWISE)
_GENERATES: Final = (_W.GENERATES, _W.NO_LONGER_GENERATES, _W.GENERATES_OTHERWISE)
_DELETES: Final = (_W.DELETES_MORE, _W.DELETES_LESS, _W.DELETES_OTHERWISE)
_SPARES: Final = (_W.DELETES_LESS, _W.DELETES_MORE, _W.DELETES_OTHERWISE)
_EXEMPTS: Final = (_W.EXCEPTION_WIDENED, _W.EXCEPTION_NARROWED, _W.EXCEPTION_CHANGED)
_FAILS: Final = (_W.FAILS_CLOSED, _W.FAILS_OPEN, _W.ENFORCES_OTHERWISE)
_REPORTS: Final = (_W.REPORTS_MORE, _W.REPORTS_LESS, _W.ENFORCES_OTHERWISE)

_RESOURCES: Final = (
    "matches more resources",
    "matches fewer resources",
    "matches other resources than before, perhaps fewer",
)
_CONDITIONS: Final = (
    "applies under fewer conditions",
    "applies under more conditions",
    "applies under other conditions, perhaps less often",
)
_EXCLUSIONS: Final = (
    "excludes more resources",
    "excludes fewer resources",
    "excludes other resources than before, perhaps more",
)
_REQUESTS: Final = (
    "also applies to requests of Kyverno's background controller",
    "skips requests of Kyverno's background controller",
    "treats requests of Kyverno's background controller otherwise",
)
_PODS: Final = (
    "also covers more pod controllers",
    "covers fewer pod controllers",
    "covers other pod controllers than before",
)
_ADMISSION: Final = (
    "is evaluated at admission",
    "is no longer evaluated at admission",
    "changes evaluation at admission",
)


def _presentation(path: str, default: Json = None) -> Facet:
    """Name a field that people read and no decision depends on."""
    says = "changes a text or setting that no decision depends on"
    return facet(path, covering.undecided, (_W.PRESENTATION,) * 3, (says,) * 3, _N, default=default, denies=False)


def _undecided(path: str, says: str, default: Json) -> Facet:
    """Name a field of which only the default is known: any other value is a change of unknown direction."""
    return facet(path, covering.undecided, (_W.ENFORCES_OTHERWISE,) * 3, (says,) * 3, default=default)


def _timeout(path: str) -> Facet:
    return _undecided(path, "changes the time it has, after which it cannot be evaluated", 10)


def _switch(path: str, what: tuple[What, What, What], on: str, off: str, *, default: bool) -> Facet:
    return facet(path, _BOOL, what, (on, off, f"{on} or not, direction unknown"), default=default)


def _background(path: str, default: Json = True) -> Facet:  # noqa: FBT002 - the default of the field
    says = (
        "scans existing resources in the background",
        "no longer scans existing resources",
        "scans otherwise",
    )
    return facet(path, _BOOL, _REPORTS, says, default=default, denies=False)


def _failure_policy(path: str) -> Facet:
    says = (
        "denies a request when it cannot be evaluated",
        "lets a request pass when it cannot be evaluated",
        "changes what happens when it cannot be evaluated",
    )
    return facet(path, ladder("Ignore", "Fail"), _FAILS, says, default="Fail")


# --- rules of ClusterPolicy and Policy -------------------------------------------------------------

_RULE: Final = (
    facet("match", matching.match_block, _MATCHES, _RESOURCES),
    facet("exclude", matching.match_block, _EXCLUDES, _EXCLUSIONS, _L),
    facet("preconditions", matching.conditions, _MATCHES, _CONDITIONS),
    facet("celPreconditions", covering.match_conditions, _MATCHES, _CONDITIONS),
    facet("skipBackgroundRequests", _UNLESS, _MATCHES, _REQUESTS, default=True),
    _presentation("reportProperties"),
)

_POD_SECURITY: Final = (
    "demands a stricter Pod Security level",
    "demands a laxer Pod Security level",
    "changes Pod Security",
)


def _denials(wide: Json, narrow: Json) -> bool:
    """Whether a `deny` denies all that the other does; without conditions it denies everything."""
    one, other = (mapping(side, known=frozenset({"conditions"})) for side in (wide, narrow))
    return matching.conditions(one.get("conditions"), other.get("conditions"))


CHECK_RULE: Final = (
    *_RULE,
    facet(
        "validate.allowExistingViolations",
        _UNLESS,
        _ENFORCES,
        (
            "also denies updates of resources that violated it before",
            "lets resources that violated it before go on",
            "treats resources that violated it before otherwise",
        ),
        default=True,
    ),
    facet(
        "validate.deny",
        both(_denials),
        _ENFORCES,
        ("denies under fewer conditions", "denies under more conditions", "denies under other conditions"),
    ),
    facet(
        "validate.anyPattern",
        both(contains),
        _RELAXES,
        ("allows more patterns", "allows fewer patterns", "allows other patterns"),
        _L,
    ),
    facet("validate.podSecurity.level", ladder("privileged", "baseline", "restricted"), _ENFORCES, _POD_SECURITY),
    facet(
        "validate.podSecurity.exclude",
        contains,
        _RELAXES,
        (
            "exempts more from Pod Security",
            "exempts less from Pod Security",
            "changes Pod Security exemptions",
        ),
        _L,
    ),
    facet(
        "validate.cel.expressions",
        both(covering.expressions),
        _ENFORCES,
        ("demands more", "demands less", "demands something else, perhaps less"),
    ),
    _undecided("validate.cel.generate", "changes whether it becomes a ValidatingAdmissionPolicy", default=False),
    _presentation("validate.message"),
)
_IMAGE_SWITCHES: Final = (
    _switch("required", _ENFORCES, "requires verified images", "no longer requires verified images", default=True),
    _switch("verifyDigest", _ENFORCES, "requires a digest", "no longer requires a digest", default=True),
    _switch(
        "mutateDigest",
        _ENFORCES,
        "replaces tags by digests",
        "no longer replaces tags by digests",
        default=True,
    ),
)
IMAGE_CHECK: Final = (
    facet(
        "imageReferences",
        both(covering.patterns),
        _ENFORCES,
        ("verifies more images", "verifies fewer images", "verifies other images, perhaps fewer"),
    ),
    facet(
        "skipImageReferences",
        covering.patterns,
        _RELAXES,
        ("skips more images", "skips fewer images", "skips other images, perhaps more"),
        _L,
    ),
    *_IMAGE_SWITCHES,
    _undecided("useCache", "changes whether results of verification are kept", default=True),
)
_EXISTING: Final = ("also changes existing resources", "no longer changes existing resources")
MUTATE_RULE: Final = (
    *_RULE,
    _switch("mutate.mutateExistingOnPolicyUpdate", _MUTATES, *_EXISTING, default=False),
)
_GENERATE_EXISTING: Final = (
    "also generates for existing resources",
    "no longer generates for existing resources",
)
_SYNCHRONIZE: Final = ("keeps what it generates in step", "no longer keeps what it generates in step")
_ORPHAN: Final = (
    "leaves what it generated when it is deleted",
    "deletes what it generated when it is deleted",
    "changes what happens to what it generated",
)


def _orphan(path: str) -> Facet:
    what = (_W.GENERATES_OTHERWISE,) * 3
    return facet(path, _BOOL, what, _ORPHAN, _N, default=False, denies=False)


GENERATE_RULE: Final = (
    *_RULE,
    _switch("generate.generateExisting", _GENERATES, *_GENERATE_EXISTING, default=False),
    _switch("generate.synchronize", _GENERATES, *_SYNCHRONIZE, default=False),
    _orphan("generate.orphanDownstreamOnPolicyDelete"),
)
#: What a ClusterPolicy or Policy says for all its rules; the deprecated places are moved to these before.
KYVERNO_POLICY: Final = (
    facet("admission", _BOOL, _MATCHES, _ADMISSION, default=True),
    _background("background"),
    _failure_policy("webhookConfiguration.failurePolicy"),
    _timeout("webhookConfiguration.timeoutSeconds"),
    facet("webhookConfiguration.matchConditions", covering.match_conditions, _MATCHES, _CONDITIONS),
    facet(
        "applyRules",
        ladder("One", "All"),
        _ENFORCES,
        ("applies all its rules", "stops after the first rule that applies", "applies its rules otherwise"),
        default="All",
    ),
    _presentation("emitWarning", default=False),
    _presentation("schemaValidation"),
    facet("autogen", contains, _MATCHES, _PODS),
)


# --- policies in CEL -------------------------------------------------------------------------------


def _constrained(field: str, covers: Covers) -> tuple[Facet, Facet]:
    return (
        facet(field, covers, _MATCHES, _RESOURCES),
        facet(field, matching.excluded, _EXCLUDES, _EXCLUSIONS, _L),
    )


_CEL: Final = (
    *_constrained("matchConstraints", matching.constraints),
    facet("matchConditions", covering.match_conditions, _MATCHES, _CONDITIONS),
    _presentation("auditAnnotations"),
)
_AT_ADMISSION: Final = facet("evaluation.admission.enabled", _BOOL, _MATCHES, _ADMISSION, default=True)
_CONTROLLERS: Final = facet("autogen.podControllers.controllers", both(contains), _MATCHES, _PODS)
_MODE: Final = facet(
    "evaluation.mode",
    covering.undecided,
    (_W.MATCHES_OTHERWISE,) * 3,
    ("is evaluated in another mode",) * 3,
    default="Kubernetes",
)
_VALIDATIONS: Final = facet(
    "validations",
    covering.expressions,
    _ENFORCES,
    ("demands more", "demands less", "demands something else, perhaps less"),
)
VALIDATING: Final = (
    *_CEL,
    _VALIDATIONS,
    _failure_policy("failurePolicy"),
    _AT_ADMISSION,
    _background("evaluation.background.enabled"),
    _MODE,
    _CONTROLLERS,
    _timeout("webhookConfiguration.timeoutSeconds"),
)
IMAGE_VALIDATING: Final = (
    *VALIDATING,
    *(replace(one, path=("validationConfigurations", *one.path)) for one in _IMAGE_SWITCHES),
    facet(
        "matchImageReferences",
        both(contains),
        _ENFORCES,
        ("verifies more images", "verifies fewer images", "verifies other images, perhaps fewer"),
    ),
)
_MUTATIONS: Final = facet(
    "mutations", covering.sequence, _MUTATES, ("mutates more", "mutates less", "mutates something else")
)
MUTATING: Final = (
    *_CEL,
    *_constrained("targetMatchConstraints", matching.constraints),
    facet("targetMatchConditions", covering.match_conditions, _MATCHES, _CONDITIONS),
    _MUTATIONS,
    _failure_policy("failurePolicy"),
    _AT_ADMISSION,
    _background("evaluation.background.enabled"),
    _MODE,
    _CONTROLLERS,
    _switch("evaluation.mutateExisting.enabled", _MUTATES, *_EXISTING, default=False),
    facet("evaluation.skipBackgroundRequests", _UNLESS, _MATCHES, _REQUESTS, default=True),
)
GENERATING: Final = (
    *_CEL,
    facet(
        "generate",
        covering.expressions,
        _GENERATES,
        ("generates more", "generates less", "generates something else"),
    ),
    _AT_ADMISSION,
    _switch("evaluation.generateExisting.enabled", _GENERATES, *_GENERATE_EXISTING, default=False),
    _switch("evaluation.synchronize.enabled", _GENERATES, *_SYNCHRONIZE, default=False),
    _orphan("evaluation.orphanDownstreamOnPolicyDelete.enabled"),
    facet("evaluation.skipBackgroundRequests", _UNLESS, _MATCHES, _REQUESTS, default=True),
)
ADMISSION_POLICY: Final = (*_CEL, _VALIDATIONS, _failure_policy("failurePolicy"))
MUTATING_ADMISSION_POLICY: Final = (*_CEL, _MUTATIONS, _failure_policy("failurePolicy"))
BINDING: Final = _constrained("matchResources", matching.binding_constraints)


# --- deleting --------------------------------------------------------------------------------------

_CLEANS: Final = ("deletes more resources", "deletes fewer resources", "deletes other resources than before")
_SPARED: Final = ("spares more resources", "spares fewer resources", "spares other resources than before")
CLEANUP: Final = (
    facet("match", matching.match_block, _DELETES, _CLEANS),
    facet("exclude", matching.match_block, _SPARES, _SPARED, _L),
    facet("conditions", matching.conditions, _DELETES, _CLEANS),
)
DELETING: Final = (
    facet("matchConstraints", matching.constraints, _DELETES, _CLEANS),
    facet("matchConstraints", matching.excluded, _SPARES, _SPARED, _L),
    facet("conditions", covering.match_conditions, _DELETES, _CLEANS),
)


# --- exceptions ------------------------------------------------------------------------------------


def _excepted_rules(wide: Json, narrow: Json) -> bool:
    """Whether v2 Exceptions (a policy's name, and patterns of its rules') cover others."""
    return all(
        any(
            mapping(one).get("policyName") == mapping(other).get("policyName")
            and covering.patterns(texts(one.get("ruleNames")), texts(other.get("ruleNames")))
            for one in covering.items(wide)
        )
        for other in covering.items(narrow)
    )


def _controls(wide: Json, narrow: Json) -> bool:
    """Whether exempted Pod Security controls cover others; none named means the rule as a whole."""
    return not covering.items(wide) or (bool(covering.items(narrow)) and contains(wide, narrow))


def _scope(wide: Json, narrow: Json) -> bool:
    """Whether an exception's `images` and `allowedValues` allow all that others do; none exempts in full."""
    if not any(map(texts, wide.values())):
        return True
    if not any(map(texts, narrow.values())):
        return False
    images, others = (texts(side["images"]) for side in (wide, narrow))
    return contains(images, others) and contains(wide["allowedValues"], narrow["allowedValues"])


def _exempts(path: str, covers: Covers, together: tuple[str, ...] = ()) -> Facet:
    says = ("exempts more", "exempts less", "exempts something else, perhaps more")
    return facet(path, covers, _EXEMPTS, says, _L, together=together)


LEGACY_EXCEPTION: Final = (
    _exempts("match", matching.match_block),
    _exempts("conditions", matching.conditions),
    _exempts("exceptions", _excepted_rules),
    _exempts("podSecurity", _controls),
    facet(
        "background",
        _BOOL,
        _EXEMPTS,
        (
            "also holds in background scans",
            "no longer holds in background scans",
            "changes in background scans",
        ),
        _L,
        default=True,
        denies=False,
    ),
)
EXCEPTION: Final = (
    _exempts("policyRefs", contains),
    _exempts("matchConditions", covering.match_conditions),
    _exempts("images", _scope, ("allowedValues",)),
    facet(
        "expiresAt",
        covering.until,
        _EXEMPTS,
        ("expires later or never", "expires earlier", "expires at another time"),
        _L,
    ),
    _presentation("reportResult", default="skip"),
    _presentation("properties"),
)
