"""The plan under test: what the cluster holds before and after, and policies of others in between."""

from __future__ import annotations

from typing import Final

from renderer.manifest.jsontypes import JsonObject
from tests.support.policies import (
    admission_binding,
    admission_policy,
    cluster_policy,
    context,
    exception,
    identity_of,
    namespaced_policy,
    validating_policy,
)


def _ignoring(body: JsonObject) -> JsonObject:
    return {**body, "spec": {**body["spec"], "failurePolicy": "Ignore"}}


#: Of every kind one stays, so that a kind which can't be read is one that is wanted.
_SAME: Final = (
    cluster_policy("same"),
    namespaced_policy("same"),
    validating_policy("same"),
    admission_policy("same"),
    admission_binding("same", policy="same"),
    exception("same"),
    context("same"),
)
BEFORE: Final = (
    *_SAME,
    cluster_policy("changed"),
    cluster_policy("labelled"),
    cluster_policy("withdrawn"),
    namespaced_policy("withdrawn"),
    validating_policy("changed"),
    admission_policy("changed"),
    admission_policy("withdrawn"),
    admission_binding("withdrawn", policy="withdrawn"),
    exception("withdrawn"),
)
AFTER: Final = (
    *_SAME,
    cluster_policy("changed", message="Other."),
    cluster_policy("labelled", labels={"tier": "one"}),
    cluster_policy("new"),
    namespaced_policy("new"),
    validating_policy("changed", expression="has(object.metadata.annotations)"),
    _ignoring(admission_policy("changed")),
    admission_policy("new"),
    admission_binding("new", policy="new"),
    exception("new"),
    context("new"),
)
CHANGES: Final = 15
KINDS: Final = 7
#: Nobody's, and somebody else's, of kinds that the plan changes.
FOREIGN: Final = (
    cluster_policy("foreign", labels={"team": "other"}),
    validating_policy("foreign"),
    admission_policy("foreign"),
    exception("foreign"),
)
#: What can't be written when that other change is not made, which is written before it.
NEEDS: Final = {
    identity_of(admission_binding("new", policy="new")): identity_of(admission_policy("new")),
    identity_of(admission_policy("withdrawn")): identity_of(admission_binding("withdrawn", policy="withdrawn")),
}
