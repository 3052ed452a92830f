"""What of an intent is on the cluster, as far as that can be told, and the step that is left from there."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from applier import diff
from applier.change import Action, Change
from applier.ports import Live
from applier.transaction.standing import Standing, from_here, given_up, may_go_on, standing
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content
from renderer.manifest.ownership import OWNED_BY
from tests.support.policies import cluster_policy, desired, live, live_object

BEFORE = live_object(cluster_policy("p", labels={"tier": "one"}))
(POLICY,) = desired(cluster_policy("p", message="Other.", labels={"tier": "two"}))
KIND = POLICY.identity.kind
AFTER = diff.wanted(POLICY.body, BEFORE, kind=KIND, api_version="kyverno.io/v1")
PATCH = diff.patch(content(BEFORE, KIND), AFTER)
UPDATED = Change(identity=POLICY.identity, action=Action.UPDATE, before=BEFORE, after=AFTER, patch=PATCH)
ADOPTED = replace(UPDATED, action=Action.ADOPT)
CREATED = replace(UPDATED, action=Action.CREATE, before=None, after=POLICY.body, patch=())
DELETED = replace(UPDATED, action=Action.DELETE, after=None, patch=())
REPLACED = replace(UPDATED, action=Action.REPLACE, after=POLICY.body, patch=())
NOTHING = live()


def seen(body: JsonObject, *, anew: bool = False, labels: dict[str, str] | None = None, owned: bool = True) -> Live:
    """The object there with that content: the one of before, or one that was created anew."""
    held = copy.deepcopy(body)
    metadata = held["metadata"]
    metadata |= {"uid": "another" if anew else BEFORE["metadata"]["uid"], "resourceVersion": "9"}
    if labels is not None:
        metadata["labels"] = labels
    if not owned:
        del metadata["annotations"][OWNED_BY]
    return live({**held, "status": {"ready": False}})


def edited(body: JsonObject) -> JsonObject:
    return {**body, "spec": {**body["spec"], "failurePolicy": "Ignore"}}


def going(held: Live) -> Live:
    for body in held.objects.values():
        body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return held


@pytest.mark.parametrize(
    ("change", "held", "stands"),
    [
        (CREATED, NOTHING, Standing.BEFORE),
        (UPDATED, NOTHING, Standing.OTHER),
        (ADOPTED, NOTHING, Standing.OTHER),
        (DELETED, NOTHING, Standing.AFTER),
        (REPLACED, NOTHING, Standing.BETWEEN),
        (CREATED, seen(POLICY.body, anew=True), Standing.AFTER),
        (CREATED, seen(POLICY.body, anew=True, labels={"theirs": "x"}), Standing.AFTER),
        (CREATED, seen(POLICY.body, anew=True, owned=False), Standing.OTHER),
        (CREATED, seen(edited(POLICY.body), anew=True), Standing.OTHER),
        (UPDATED, seen(BEFORE), Standing.BEFORE),
        (UPDATED, seen(BEFORE, labels={"tier": "one", "theirs": "x"}), Standing.BEFORE),
        (UPDATED, seen(BEFORE, labels={"tier": "two"}), Standing.OTHER),
        (UPDATED, seen(BEFORE, anew=True), Standing.OTHER),
        (UPDATED, seen(AFTER), Standing.AFTER),
        (UPDATED, seen(AFTER, labels={"theirs": "x"}), Standing.AFTER),
        (UPDATED, seen(AFTER, anew=True), Standing.OTHER),
        (UPDATED, seen(AFTER, owned=False), Standing.OTHER),
        (UPDATED, seen(edited(AFTER)), Standing.OTHER),
        (ADOPTED, seen(AFTER), Standing.AFTER),
        (ADOPTED, seen(AFTER, anew=True), Standing.OTHER),
        (DELETED, seen(BEFORE), Standing.BEFORE),
        (DELETED, seen(BEFORE, anew=True), Standing.BEFORE),
        (DELETED, seen(edited(BEFORE)), Standing.BEFORE),
        (DELETED, seen(edited(BEFORE), anew=True), Standing.OTHER),
        (DELETED, seen(POLICY.body, anew=True), Standing.OTHER),
        (REPLACED, seen(BEFORE), Standing.BEFORE),
        (REPLACED, seen(BEFORE, anew=True), Standing.BEFORE),
        (REPLACED, seen(POLICY.body, anew=True), Standing.AFTER),
        (REPLACED, seen(POLICY.body, anew=True, owned=False), Standing.OTHER),
        (REPLACED, seen(edited(POLICY.body), anew=True), Standing.OTHER),
        (UPDATED, going(seen(BEFORE)), Standing.OTHER),
        (CREATED, going(seen(POLICY.body, anew=True)), Standing.OTHER),
    ],
)
def test_what_is_live_tells_how_far_the_step_came(change: Change, held: Live, stands: Standing) -> None:
    assert standing(change, held) is stands


@pytest.mark.parametrize("change", [CREATED, UPDATED, DELETED])
def test_what_cannot_be_read_is_no_guess(change: Change) -> None:
    assert standing(change, replace(seen(BEFORE), unreadable={KIND: "no rights"})) is Standing.UNKNOWN
    assert standing(change, live(missing=(KIND,))) is Standing.UNKNOWN


@pytest.mark.parametrize(
    ("change", "held", "given"),
    [
        (UPDATED, seen(AFTER), False),
        (UPDATED, seen(edited(AFTER)), False),
        (UPDATED, seen(AFTER, owned=False), True),
        (DELETED, seen(edited(BEFORE), anew=True, owned=False), True),
        (UPDATED, NOTHING, False),
        # Before it was adopted it was not owned either.
        (replace(ADOPTED, before=seen(BEFORE, owned=False).objects[POLICY.identity]), seen(BEFORE, owned=False), False),
    ],
)
def test_what_was_taken_from_insights_since_is_left_alone(change: Change, held: Live, given: bool) -> None:
    assert given_up(change, held) is given


@pytest.mark.parametrize(
    ("change", "held", "may"),
    [
        (UPDATED, seen(BEFORE), True),
        (UPDATED, NOTHING, True),
        (UPDATED, seen(BEFORE, owned=False), False),
        (DELETED, seen(BEFORE, owned=False), False),
        (ADOPTED, seen(BEFORE, owned=False), True),
    ],
)
def test_the_rest_is_made_only_of_what_insights_owns_or_adopts(change: Change, held: Live, may: bool) -> None:
    assert may_go_on(change, held) is may


def test_what_is_gone_is_created() -> None:
    for change in (CREATED, REPLACED):
        assert from_here(change, NOTHING) == CREATED
    # Whatever led to it: from nothing there is no patch.
    assert from_here(UPDATED, NOTHING) == replace(UPDATED, action=Action.CREATE, before=None, patch=())


@pytest.mark.parametrize("change", [DELETED, REPLACED])
def test_what_is_deleted_is_the_object_that_is_there(change: Change) -> None:
    held = seen(BEFORE, anew=True, labels={"theirs": "x"})
    assert from_here(change, held) == replace(change, before=held.objects[POLICY.identity])


@pytest.mark.parametrize("change", [UPDATED, ADOPTED])
def test_the_labels_of_others_stay_where_the_rest_is_made(change: Change) -> None:
    held = seen(BEFORE, labels={"tier": "one", "theirs": "x"})
    found = held.objects[POLICY.identity]
    left = from_here(change, held)
    assert (left.action, left.before, left.identity) == (change.action, found, change.identity)
    assert left.after is not None
    assert left.after["spec"] == AFTER["spec"]
    assert left.after["metadata"]["labels"] == {"tier": "two", "theirs": "x"}
    assert left.after["metadata"]["annotations"] == AFTER["metadata"]["annotations"]
    assert left.patch == diff.patch(content(found, KIND), left.after)
