"""What a saved plan holds, what makes it stale, and what is no saved plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from applier import plan, saved_plan
from applier.change import Action, Plan, Rehearsed
from applier.guards.refusals import Allowed
from applier.report.document import Basis, Entry, document
from applier.verdict import Finding, Layer, Verdict
from renderer.errors import ConfigurationError, ExitCode, InputError, InvalidPolicies, Problem, Refusal
from renderer.manifest.jsontypes import JsonObject
from renderer.snapshot import Snapshot
from tests.support.policies import (
    admission_policy,
    cluster_policy,
    desired,
    exception,
    identity_of,
    live,
    live_object,
    validating_policy,
)

UIDS = {"namespace/kube-system": "u1", "configmap/kube-system/extension-apiserver-authentication": "u2"}
WANTED = (cluster_policy("changed", message="Other."), cluster_policy("same"), validating_policy("new"))
#: The same objects in every plan: their UIDs are made when they are.
LIVE = {name: live_object(cluster_policy(name)) for name in ("changed", "same", "withdrawn")}


UID = LIVE["withdrawn"]["metadata"]["uid"]
OURS = "/metadata/annotations/insights.fairwinds.com"


def planned(*held: JsonObject, asked: Rehearsed = Rehearsed.ACCEPTED) -> Plan:
    """The plan of WANTED when these objects are live, and the server answers what its schemas say."""
    made = plan.draft(desired(*WANTED), live(*held), allowed=Allowed())
    changes = [
        replace(change, rehearsed=asked) if change.action is not Action.REFUSED else change for change in made.changes
    ]
    return replace(made, changes=tuple(changes))


def a_snapshot(**other: Any) -> Snapshot:
    return replace(Snapshot(organization="acme", cluster="prod", policies=desired(*WANTED), digest="a" * 64), **other)


def a_document(made: Plan, verdict: Verdict | None = None, identity: dict[str, str] | None = None) -> JsonObject:
    basis = Basis(
        server="https://c",
        identity=UIDS if identity is None else identity,
        snapshot=a_snapshot(),
        commit="b" * 40,
        flags={"adopt": False, "max-delete": None, "only": ["ClusterPolicy/a"]},
    )
    return document(made, verdict or Verdict(), basis)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., saved_plan.SavedPlan]:
    def save(*arguments: Any, **more: Any) -> saved_plan.SavedPlan:
        saved_plan.write(tmp_path / "plan.json", a_document(*arguments, **more))
        return saved_plan.read(tmp_path / "plan.json")

    return save


Save = Callable[..., saved_plan.SavedPlan]


def stale(approved: saved_plan.SavedPlan, now: Plan, snapshot: Snapshot | None = None) -> tuple[str, ...]:
    """What `require_same` names; nothing when it raises nothing."""
    try:
        approved.require_same(UIDS, snapshot or a_snapshot(), now)
    except Refusal as error:
        return error.details if error.code is ExitCode.STALE_PLAN else (f"another refusal: {error.code}",)
    return ()


def edited(name: str, edit: Callable[[JsonObject], object]) -> JsonObject:
    body: JsonObject = json.loads(json.dumps(LIVE[name]))
    edit(body)
    return body


def strict_schema() -> JsonObject:
    """The published schema, refusing what it does not describe."""

    def strict(part: Any) -> Any:
        if isinstance(part, list):
            return [strict(item) for item in part]
        if not isinstance(part, dict):
            return part
        closed = {"additionalProperties": False} if "properties" in part and "additionalProperties" not in part else {}
        return {key: strict(value) for key, value in part.items()} | closed

    text = resources.files("applier.report").joinpath("plan-v1.schema.json").read_text()
    schema: JsonObject = strict(json.loads(text))
    return schema


def test_the_document_is_what_its_schema_says_and_nothing_more() -> None:
    withdrawn = live_object(cluster_policy("withdrawn"))
    withdrawn["metadata"]["managedFields"] = [{"manager": "kubectl-edit", "fieldsV1": {"f:spec": {}}}]
    foreign = live_object(admission_policy("foreign"), owned=False)
    made = plan.draft(
        desired(*WANTED, admission_policy("foreign"), exception("unserved")),
        live(*LIVE.values(), foreign, missing=(identity_of(exception()).kind,)),
        allowed=Allowed(),
    )
    changed = next(change for change in made.changes if change.action is Action.UPDATE)
    made = replace(
        made,
        changes=(*made.changes, replace(changed, action=Action.REPLACE, drifted_by=("kubectl-edit",))),
        notes=("a note",),
    )
    problem = Problem(source="a.yaml", message="is wrong")
    verdict = Verdict(
        findings=(
            Finding(policy=changed.identity, layer=Layer.SERVER, problem=problem),
            Finding(policy=changed.identity, layer=Layer.CLI, problem=problem, warning=True),
        )
    )
    found = a_document(made, verdict)
    jsonschema_rs.Draft7Validator(strict_schema()).validate(found)
    assert {change["action"] for change in found["changes"]} >= {"create", "update", "delete", "refused", "unchanged"}
    assert {refusal["exitCode"] for refusal in found["refusals"]} == {ExitCode.NOT_OWNED, ExitCode.KIND_UNAVAILABLE}
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.Draft7Validator(strict_schema()).validate({**found, "made": "at noon"})


def test_what_is_written_is_what_is_read(saved: Save) -> None:
    made = planned(*LIVE.values())
    approved = saved(made)
    assert approved.entries == {change.identity: Entry.of(change) for change in made.changes}
    assert (approved.identity, approved.organization, approved.cluster) == (UIDS, "acme", "prod")
    assert approved.flags == {"adopt": False, "max-delete": None, "only": ["ClusterPolicy/a"]}
    approved.require_appliable()
    assert stale(approved, made) == ()


def test_the_same_plan_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        saved_plan.write(tmp_path / name, a_document(planned(*LIVE.values())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


UNDISTURBING: dict[str, Callable[[JsonObject], object]] = {
    "status": lambda body: body.update(status={"ready": False}),
    "versions": lambda body: body["metadata"].update(resourceVersion="99", generation=7, managedFields=[{}]),
    "a foreign label where there was none": lambda body: body["metadata"].update(labels={"team": "a"}),
    "a foreign annotation": lambda body: body["metadata"]["annotations"].update(seen="yes"),
    "a finalizer": lambda body: body["metadata"].update(finalizers=["example.com/held"]),
}


@pytest.mark.parametrize("name", LIVE)
@pytest.mark.parametrize("edit", UNDISTURBING.values(), ids=UNDISTURBING)
def test_what_is_nobodys_business_disturbs_no_plan(
    saved: Save, name: str, edit: Callable[[JsonObject], object]
) -> None:
    approved = saved(planned(*LIVE.values()))
    now = planned(*(LIVE | {name: edited(name, edit)}).values())
    assert stale(approved, now) == ()


def test_an_object_that_is_stored_in_another_version_is_the_same(saved: Save) -> None:
    approved = saved(planned(*LIVE.values()))
    now = planned(*LIVE.values())
    moved = [
        replace(
            change,
            before=change.before and {**change.before, "apiVersion": "kyverno.io/v3"},
            after=change.after and {**change.after, "apiVersion": "kyverno.io/v3"},
        )
        for change in now.changes
    ]
    assert stale(approved, replace(now, changes=tuple(moved))) == ()


STALE: dict[str, tuple[dict[str, JsonObject | None], str]] = {
    "spec": (
        {"changed": edited("changed", lambda body: body["spec"].update(background=False))},
        "ClusterPolicy/changed: was changed by somebody; it now differs at /spec/background too",
    ),
    "the very place that the plan changes": (
        {"changed": edited("changed", lambda body: body["spec"]["rules"][0]["validate"].update(message="By hand."))},
        "ClusterPolicy/changed: was changed by somebody",
    ),
    "what is to be deleted": (
        {"withdrawn": edited("withdrawn", lambda body: body["spec"].update(background=False))},
        "ClusterPolicy/withdrawn: was changed by somebody",
    ),
    "what was in sync": (
        {"same": edited("same", lambda body: body["spec"].update(background=False))},
        "ClusterPolicy/same: was changed by somebody; it now differs at /spec/background too",
    ),
    "our own annotation": (
        {
            "same": edited(
                "same", lambda body: body["metadata"]["annotations"].pop("insights.fairwinds.com/managed-keys")
            )
        },
        f"ClusterPolicy/same: was changed by somebody; it now differs at {OURS}~1managed-keys too",
    ),
    "an owner's mark that is gone": (
        {"same": edited("same", lambda body: body["metadata"]["annotations"].pop("insights.fairwinds.com/owned-by"))},
        f"ClusterPolicy/same: was changed by somebody; it now differs at {OURS}~1owned-by too",
    ),
    "a planned creation": (
        {"new": live_object(validating_policy("new"))},
        "ValidatingPolicy/new: exists now, and the plan creates it",
    ),
    "a planned creation, by others": (
        {"new": live_object(validating_policy("new"), owned=False)},
        "ValidatingPolicy/new: exists now, and the plan creates it",
    ),
    "gone": ({"changed": None}, "ClusterPolicy/changed: is gone; it would be created now"),
    "gone already": (
        {"withdrawn": None},
        "ClusterPolicy/withdrawn: is gone, or this account can't read it; the plan has it deleted",
    ),
    "an owned one more": (
        {"more": live_object(cluster_policy("more"))},
        "ClusterPolicy/more: is not in the plan, and would be deleted now",
    ),
    "another object": (
        {"withdrawn": edited("withdrawn", lambda body: body["metadata"].update(uid="another"))},
        f"ClusterPolicy/withdrawn: was replaced by another object of that name (UID another, and {UID} in the plan)",
    ),
}


@pytest.mark.parametrize(("held", "told"), STALE.values(), ids=STALE)
def test_what_really_changed_makes_it_stale(saved: Save, held: dict[str, JsonObject | None], told: str) -> None:
    approved = saved(planned(*LIVE.values()))
    now = planned(*(body for body in (LIVE | held).values() if body))
    assert stale(approved, now) == (told,)


def test_a_plan_that_was_applied_before_says_so(saved: Save) -> None:
    made = planned(*LIVE.values())
    (change,) = made.of(Action.UPDATE)
    done = {**LIVE["changed"], "spec": (change.after or {})["spec"]}
    told = ("ClusterPolicy/changed: is already as it should be; the plan has it updated",)
    assert stale(saved(made), planned(done, LIVE["same"], LIVE["withdrawn"])) == told


def test_all_differences_are_in_one_message(saved: Save) -> None:
    approved = saved(planned(*LIVE.values()))
    now = planned(live_object(validating_policy("new")))
    told = stale(approved, now, a_snapshot(digest="c" * 64, cluster="test"))
    assert told[0].startswith("The snapshot is another: its digest is cccc")
    assert told[1] == "The snapshot is of acme/test, and the plan of acme/prod."
    assert [line.partition(":")[0] for line in told[2:]] == [
        "ClusterPolicy/changed", "ClusterPolicy/same", "ClusterPolicy/withdrawn", "ValidatingPolicy/new",
    ]  # fmt: skip


def test_a_foreign_owner_of_what_is_refused_now_is_the_refusals_business(saved: Save) -> None:
    approved = saved(planned(*LIVE.values()))
    terminating = edited("changed", lambda body: body["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z"))
    assert stale(approved, planned(*(LIVE | {"changed": terminating}).values())) == ()
    unreadable = live(*(body for name, body in LIVE.items() if name == "none"), missing=(identity_of(WANTED[0]).kind,))
    now = plan.draft(desired(*WANTED), unreadable, allowed=Allowed())
    assert [line for line in stale(approved, now) if "withdrawn" not in line] == []


def with_outcome(made: Plan, **outcome: Any) -> Plan:
    """The plan with another outcome of what it updates."""
    return replace(
        made,
        changes=tuple(
            replace(change, **outcome) if change.action is Action.UPDATE else change for change in made.changes
        ),
    )


def test_a_server_that_would_store_something_else_is_told(saved: Save) -> None:
    made = planned(*LIVE.values())
    (update,) = made.of(Action.UPDATE)
    defaulted = {**(update.after or {}), "spec": {**(update.after or {})["spec"], "admission": True}}
    other = with_outcome(made, after=defaulted)
    assert stale(saved(made), other) == ("ClusterPolicy/changed: would be stored otherwise than the server said then",)
    assert stale(saved(made), with_outcome(made, action=Action.UNCHANGED)) == (
        "ClusterPolicy/changed: would be left as it is now, and updated by the plan",
    )
    # A plan that could not ask the server did not say what it would store.
    unasked = saved(planned(*LIVE.values(), asked=Rehearsed.NOT_ASKED))
    assert stale(unasked, other) == ()
    assert stale(unasked, with_outcome(made, action=Action.UNCHANGED)) == ()


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (UIDS, ""),
        ({"namespace/kube-system": "u1"}, ""),
        ({"namespace/kube-system": "other"}, "was made for another cluster"),
        ({**UIDS, "namespace/kube-system": "other"}, "was made for another cluster"),
        ({}, "Nothing tells"),
        ({"namespace/elsewhere": "u1"}, "Nothing tells"),
    ],
)
def test_a_cluster_is_known_by_every_uid_that_both_sides_have(saved: Save, found: dict[str, str], told: str) -> None:
    approved = saved(planned())
    if not told:
        approved.require_cluster(found)
        return
    with pytest.raises(Refusal, match=told) as caught:
        approved.require_cluster(found)
    assert caught.value.code is ExitCode.WRONG_CLUSTER


def test_a_refused_plan_and_an_invalid_one_are_not_appliable(saved: Save) -> None:
    foreign = live_object(cluster_policy("same"), owned=False)
    with pytest.raises(Refusal) as caught:
        saved(planned(foreign)).require_appliable()
    assert caught.value.code is ExitCode.NOT_OWNED
    finding = Finding(
        policy=identity_of(WANTED[0]), layer=Layer.SERVER, problem=Problem(source="a", message="is wrong")
    )
    with pytest.raises(InvalidPolicies):
        saved(planned(), Verdict(findings=(finding,))).require_appliable()
    saved(planned(), Verdict(findings=(replace(finding, warning=True),))).require_appliable()


def damaged(change: Callable[[JsonObject], object]) -> bytes:
    found = json.loads(json.dumps(a_document(planned(*LIVE.values()))))
    change(found)
    return json.dumps(found).encode()


NO_PLANS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "truncated"),
    "truncated": (damaged(lambda _: None)[:-9], "truncated"),
    "not JSON": (b"---\na: plan", "no JSON"),
    "not text": (b"\xff\xfe\x00", "no JSON"),
    "too deep": (b"[" * 100_000, "no JSON"),
    "another document": (b"{}", "no saved plan"),
    "a list": (b"[]", "no saved plan"),
    "newer": (
        damaged(lambda found: found.update(formatVersion=2, changes=[])),
        "format version 2; this program reads 1",
    ),
    "version that is no number": (damaged(lambda found: found.update(formatVersion="1")), "formatVersion"),
    "a field is missing": (damaged(lambda found: found.pop("flags")), 'the document: "flags" is a required'),
    "an action that there is not": (
        damaged(lambda found: found["changes"][0].update(action="destroy")),
        r"changes\[0\].action: the value is not one of",
    ),
    "a digest that is none": (damaged(lambda found: found["changes"][0].update(before="x")), r"changes\[0\].before"),
    "a kind that is not managed": (damaged(lambda found: found["changes"][0].update(kind="Pod")), "Pod of kyverno.io"),
    "a policy twice": (damaged(lambda found: found["changes"].append(found["changes"][0])), "lists a policy twice"),
    "a code that there is not": (
        damaged(lambda found: found["refusals"].append({"exitCode": 10.5, "message": "", "hint": "", "subjects": []})),
        "exitCode: the value is not of type",
    ),
}


@pytest.mark.parametrize(("data", "told"), NO_PLANS.values(), ids=NO_PLANS)
def test_what_is_no_plan_is_refused_with_what_is_wrong(tmp_path: Path, data: bytes, told: str) -> None:
    file = tmp_path / "plan.json"
    file.write_bytes(data)
    with pytest.raises(InputError, match=told) as caught:
        saved_plan.read(file)
    assert str(file) in caught.value.message


EDITS: dict[str, Callable[[JsonObject], object]] = {
    "another value": lambda change: change["patch"][-1].update(value="Edited."),
    "an operation less": lambda change: change["patch"].pop(),
    "no patch": lambda change: change.pop("patch"),
    "a patch for somewhere else": lambda change: change["patch"][-1].update(path="/spec/none/at/all"),
    "other content": lambda change: change["content"]["spec"].update(background=False),
    "no content": lambda change: change.pop("content"),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_plan_that_shows_something_else_than_it_approves_is_refused(tmp_path: Path, name: str) -> None:
    made = planned(*LIVE.values())
    document_ = json.loads(json.dumps(a_document(made)))
    action = "create" if "content" in name else "update"
    EDITS[name](next(change for change in document_["changes"] if change["action"] == action))
    saved_plan.write(tmp_path / "plan.json", document_)
    with pytest.raises(InputError, match="was edited: what it shows of"):
        saved_plan.read(tmp_path / "plan.json").require_same(UIDS, a_snapshot(), made)


def test_a_plan_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        saved_plan.read(tmp_path / "plan.json")
    with pytest.raises(InputError, match="can't be read"):
        saved_plan.read(tmp_path)


@pytest.mark.parametrize("place", ["missing/plan.json", ".", "file/plan.json"])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("stays")
    with pytest.raises(ConfigurationError, match=r"--out: .* can't be written"):
        saved_plan.write(tmp_path / place, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_failed_write_leaves_the_old_plan(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    saved_plan.write(file, {"a": 1})
    with pytest.raises(TypeError):
        saved_plan.write(file, {"a": object()})
    assert json.loads(file.read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_only_a_plan_that_names_its_cluster_goes_without_a_note() -> None:
    made = planned()
    assert saved_plan.noting(made, UIDS) == made
    (note,) = saved_plan.noting(made, {}).notes
    assert "kube-system" in note
