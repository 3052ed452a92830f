"""Every change or none, before a real API server: each write fails in turn, in each way; others edit meanwhile."""

from __future__ import annotations

import copy
import itertools
import json
import signal
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from applier import lock, pipeline
from applier.change import Action, Change
from applier.cluster.connection import Connection
from applier.cluster.policies import KubernetesCluster
from applier.guards.refusals import Allowed, MaxDelete
from applier.ports import ServerRefused
from applier.stop import Stop
from applier.transaction.execution import Outcome, execute
from applier.transaction.writes import OnFailure, WriteSettings
from ci.testbed.controlplane import ControlPlane
from renderer.errors import ExitCode
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content
from renderer.manifest.ownership import is_owned
from tests.support.insights import InsightsStandIn
from tests.support.journals import MemoryJournal
from tests.support.policies import (
    admission_binding,
    admission_policy,
    answer,
    cluster_policy,
    context,
    desired,
    exception,
    identity_of,
    validating_policy,
)
from tests.support.programs import CLUSTER, Programs
from tests.support.proxy import (
    Behaviour,
    Exchange,
    Proxy,
    Request,
    call,
    duplicate,
    is_write,
    not_to,
    refuse,
    reset_after,
    reset_before,
    to,
    truncate,
)

pytestmark = pytest.mark.cluster

LEASES = "/apis/coordination.k8s.io/v1/namespaces/insights-agent/leases"
ALLOWED = Allowed(empty=True, weaken=True, max_delete=MaxDelete.of("100%"))
SETTINGS = WriteSettings(grace=20, delete_timeout=5, unsettled=0.1)
BEFORE = (
    cluster_policy("changed"),
    validating_policy("changed"),
    cluster_policy("withdrawn"),
    admission_policy("withdrawn"),
    admission_binding("withdrawn", policy="withdrawn"),
    exception("withdrawn"),
    cluster_policy("same"),
)
AFTER = (
    cluster_policy("changed", message="Other."),
    validating_policy("changed", expression="has(object.metadata.annotations)"),
    exception("new"),
    context("new"),
    cluster_policy("new"),
    validating_policy("new"),
    admission_policy("new"),
    admission_binding("new", policy="new"),
    cluster_policy("same"),
)
CHANGES = 12
KINDS = 6
FOREIGN = cluster_policy("foreign")
POLICIES = not_to("leases", "configmaps")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A cluster that holds `BEFORE`, reached through a proxy and directly, and the plan that leads to `AFTER`."""

    plane: ControlPlane
    proxy: Proxy
    through: KubernetesCluster
    direct: KubernetesCluster
    planned: tuple[Change, ...]

    def objects(self) -> dict[Identity, JsonObject]:
        """What it holds of the kinds of the plan."""
        return dict(self.direct.observe(sorted({change.identity.kind for change in self.planned})).objects)

    def owned(self, objects: dict[Identity, JsonObject] | None = None) -> dict[Identity, JsonObject]:
        found = self.objects() if objects is None else objects
        return {identity: content(body, identity.kind) for identity, body in found.items() if is_owned(body)}

    def changes(self, objects: dict[Identity, JsonObject] | None = None) -> tuple[Change, ...]:
        """The plan with the objects as they are now; their content is as when it was made."""
        found = self.objects() if objects is None else objects
        return tuple(replace(change, before=found.get(change.identity)) for change in self.planned)

    def wanted(self, before: dict[Identity, JsonObject]) -> dict[Identity, JsonObject]:
        """What it holds when the plan is executed."""
        after = {change.identity: change.after for change in self.planned}
        return {identity: body for identity, body in {**before, **after}.items() if body is not None}

    def run(
        self, stop: Stop | None = None, objects: dict[Identity, JsonObject] | None = None, **settings: Any
    ) -> tuple[Outcome, MemoryJournal]:
        journal = MemoryJournal()
        outcome = execute(
            self.through,
            self.changes(objects),
            stop or Stop(),
            journal=journal,
            settings=replace(SETTINGS, **settings),
        )
        return outcome, journal

    def back(self) -> None:
        """Make it hold `BEFORE` again."""
        self.proxy.clear()
        changes = pipeline.prepare(self.direct, desired(*BEFORE), allowed=ALLOWED).plan.changes
        assert execute(self.direct, changes, Stop()).success

    def by_hand(self, method: str, body: JsonObject, sent: Any = None) -> None:
        identity = identity_of(body)
        space = f"/namespaces/{identity.namespace}" if identity.namespace else ""
        path = f"/apis/{body['apiVersion']}{space}/{identity.kind.plural}"
        if method == "POST":
            self.plane.api.call("POST", f"{path}?fieldManager=kubectl-create", body)
        else:
            self.plane.api.call(
                method,
                f"{path}/{identity.name}?fieldManager=kubectl-edit",
                sent,
                content_type="application/merge-patch+json",
            )


@pytest.fixture
def scene(cluster: ControlPlane, proxy: Proxy, tmp_path: Path) -> Scene:
    direct = KubernetesCluster(Connection.open(kubeconfig=str(cluster.kubeconfig)))
    through = KubernetesCluster(
        Connection.open(kubeconfig=str(proxy.write_kubeconfig(tmp_path / "proxied.kubeconfig")))
    )
    start = Scene(plane=cluster, proxy=proxy, through=through, direct=direct, planned=())
    start.back()
    start.by_hand("POST", FOREIGN)
    changes = pipeline.prepare(direct, desired(*AFTER), allowed=ALLOWED).plan.changes
    planned = tuple(change for change in changes if change.action is not Action.UNCHANGED)
    assert len(planned) == CHANGES
    assert len({change.identity.kind for change in planned}) == KINDS
    return replace(start, planned=planned)


FAILURES: dict[str, Behaviour] = {
    **{str(code): refuse(code) for code in (400, 403, 409, 422, 429, 500)},
    "reset before": reset_before,
}


@pytest.mark.parametrize("way", FAILURES)
def test_whatever_fails_at_whichever_write_all_is_as_before_or_as_wanted(scene: Scene, way: str) -> None:
    objects = scene.objects()
    before, foreign = scene.owned(objects), objects[identity_of(FOREIGN)]
    codes = set()
    for number in range(1, CHANGES + 1):
        scene.proxy.plan(FAILURES[way], at=number, matching=POLICIES)
        outcome, journal = scene.run(objects=objects)
        scene.proxy.clear()
        codes.add(outcome.code)
        objects = scene.objects()
        assert objects[identity_of(FOREIGN)] == foreign
        assert journal.changes is None
        if outcome.success:
            assert scene.owned(objects) == scene.wanted(before)
            scene.back()
            objects = scene.objects()
        else:
            assert (outcome.code, len(outcome.failed)) == (ExitCode.ROLLED_BACK, 1), outcome
            assert scene.owned(objects) == before
    # A conflict over nothing but the version is no failure where there was an object before.
    assert codes == {ExitCode.ROLLED_BACK} | ({ExitCode.OK} if way == "409" else set())


@pytest.mark.parametrize("way", [reset_after, truncate, duplicate], ids=["reset after", "truncated", "twice"])
def test_lost_and_repeated_answers_change_nothing_forwards_nor_backwards(scene: Scene, way: Behaviour) -> None:
    objects = scene.objects()
    before, foreign = scene.owned(objects), objects[identity_of(FOREIGN)]
    scene.proxy.plan(refuse(400), at=CHANGES, matching=POLICIES)
    scene.proxy.plan(way, matching=POLICIES, times=None)
    outcome, _ = scene.run(concurrency=1)
    assert outcome.code is ExitCode.ROLLED_BACK
    assert scene.owned() == before
    outcome, _ = scene.run()
    assert outcome.success, outcome
    objects = scene.objects()
    assert scene.owned(objects) == scene.wanted(before)
    assert objects[identity_of(FOREIGN)] == foreign


def terminates(stop: Stop, when: Any) -> Behaviour:
    return call(lambda _: stop.set("SIGTERM arrived", ExitCode.TERMINATED), when=when)


def test_a_signal_at_whichever_write_leaves_all_as_before(scene: Scene) -> None:
    objects = scene.objects()
    before, foreign = scene.owned(objects), objects[identity_of(FOREIGN)]
    for number in range(1, CHANGES):
        stop = Stop()
        scene.proxy.plan(terminates(stop, ("before", "after")[number % 2]), at=number, matching=POLICIES)
        outcome, _ = scene.run(stop, objects, concurrency=1)
        assert (outcome.code, outcome.standing) == (ExitCode.TERMINATED, frozenset())
        objects = scene.objects()
        assert scene.owned(objects) == before
        assert objects[identity_of(FOREIGN)] == foreign


def test_a_signal_that_comes_when_all_is_written_takes_nothing_back(scene: Scene) -> None:
    stop = Stop()
    scene.proxy.plan(terminates(stop, "after"), at=CHANGES, matching=POLICIES)
    outcome, journal = scene.run(stop, concurrency=1)
    assert (outcome.success, len(outcome.standing)) == (True, CHANGES)
    assert journal.calls == ["begin", "commit"]


def test_an_undo_that_is_refused_for_a_while_is_tried_again_within_the_grace(scene: Scene) -> None:
    before = scene.owned()
    for number, behaviour in ((CHANGES, refuse(400)), (CHANGES + 1, refuse(403)), (CHANGES + 2, refuse(500))):
        scene.proxy.plan(behaviour, at=number, matching=POLICIES, times=3 if number > CHANGES else 1)
    outcome, journal = scene.run(concurrency=1)
    assert outcome.code is ExitCode.ROLLED_BACK
    assert journal.calls == ["begin", "discard"]
    assert scene.owned() == before


def test_an_undo_that_is_refused_for_good_tells_what_is_where_and_keeps_the_journal(scene: Scene) -> None:
    before = scene.owned()
    scene.proxy.plan(refuse(400), at=CHANGES, matching=POLICIES)
    held = {"clusterpolicies": "It is as this run wrote it.", "validatingadmissionpolicies": "It is deleted."}

    def refuses(request: Request) -> bool:
        kept = request.resource == "clusterpolicies" and request.path.endswith("/changed")
        gone = request.resource == "validatingadmissionpolicies" and b"withdrawn" in request.body
        return POLICIES(request) and next(written) >= CHANGES and (kept or gone)

    written = itertools.count()
    scene.proxy.plan(refuse(403, message="no more"), matching=refuses, times=None)
    outcome, journal = scene.run(concurrency=1, grace=1)
    assert outcome.code is ExitCode.ROLLBACK_INCOMPLETE
    assert {identity.kind.plural for identity, _ in outcome.not_undone} == held.keys()
    for identity, why in outcome.not_undone:
        assert why.startswith(held[identity.kind.plural])
        assert "no more" in why
    assert journal.calls == ["begin"]
    assert "recover" in outcome.hint
    stuck = {identity for identity, _ in outcome.not_undone}
    now = scene.owned()
    assert all(now.get(identity) == body for identity, body in before.items() if identity not in stuck)


def test_a_write_that_the_server_makes_after_its_answer_was_lost_is_taken_back(scene: Scene) -> None:
    before = scene.owned()
    held: list[Request] = []
    is_it = identity_of(cluster_policy("new"))

    def lose(exchange: Exchange) -> None:
        held.append(exchange.request)
        exchange.reset()

    def make_it_now(exchange: Exchange) -> None:
        exchange.send(exchange.forward())
        late = held.pop()
        scene.plane.api.call(late.method, f"{late.path}?fieldManager=insights-applier", json.loads(late.body))

    def looks(request: Request) -> bool:
        return bool(held) and request.method == "GET" and request.path.endswith(f"/{is_it.kind.plural}/{is_it.name}")

    scene.proxy.plan(lose, matching=lambda request: request.method == "POST" and to(is_it.kind.plural)(request))
    scene.proxy.plan(make_it_now, matching=looks)
    outcome, _ = scene.run(unsettled=1)
    assert (outcome.code, held) == (ExitCode.ROLLED_BACK, [])
    assert is_it in outcome.restored
    assert scene.owned() == before


def test_a_finalizer_that_never_goes_is_named_and_everything_else_is_as_before(scene: Scene) -> None:
    held = BEFORE[2]
    scene.by_hand("PATCH", held, {"metadata": {"finalizers": ["example.com/never"]}})
    before = scene.owned()
    outcome, journal = scene.run(delete_timeout=0.5, grace=0.5)
    assert outcome.code is ExitCode.ROLLBACK_INCOMPLETE
    assert outcome.failed[0][0] == identity_of(held)
    assert "example.com/never" in outcome.failed[0][1]
    ((stuck, why),) = outcome.not_undone
    assert (stuck, "It is being deleted." in why) == (identity_of(held), True)
    assert scene.owned() == before
    assert journal.calls == ["begin"]


def test_a_finalizer_that_goes_within_the_grace_ends_as_before(scene: Scene) -> None:
    held = BEFORE[2]
    scene.by_hand("PATCH", held, {"metadata": {"finalizers": ["example.com/slow"]}})
    deleted = scene.changes()
    path = f"/{identity_of(held).kind.plural}/withdrawn"
    looked = itertools.count()

    def free(_: Request) -> None:
        if next(looked) == 5:
            scene.by_hand("PATCH", held, {"metadata": {"finalizers": None}})

    scene.proxy.plan(
        call(free, when="after"),
        matching=lambda request: request.method == "GET" and request.path.endswith(path),
        times=None,
    )
    journal = MemoryJournal()
    outcome = execute(
        scene.through, deleted, Stop(), journal=journal, settings=replace(SETTINGS, delete_timeout=0.01, concurrency=1)
    )
    assert (outcome.code, identity_of(held) in outcome.restored) == (ExitCode.ROLLED_BACK, True), outcome
    assert journal.calls == ["begin", "discard"]


def lists(request: Request) -> bool:
    return request.method == "GET" and request.path.endswith("/clusterpolicies")


def test_a_policy_that_somebody_puts_back_or_deletes_before_the_end_has_failed_and_another_edit_stands(
    scene: Scene,
) -> None:
    before = scene.owned()
    edit = {"spec": {"rules": [{**copy.deepcopy(AFTER[0]["spec"]["rules"][0]), "name": "by-hand"}]}}
    scene.proxy.plan(call(lambda _: scene.by_hand("PATCH", AFTER[0], edit), when="before"), matching=lists)
    outcome, journal = scene.run()
    assert (outcome.success, [identity for identity, _ in outcome.changed_since]) == (True, [identity_of(AFTER[0])])
    assert journal.calls == ["begin", "commit"]
    found = scene.direct.read(identity_of(AFTER[0]))
    assert found is not None
    assert found["spec"]["rules"][0]["name"] == "by-hand"
    scene.back()
    scene.proxy.plan(
        call(lambda _: scene.by_hand("PATCH", AFTER[0], {"spec": BEFORE[0]["spec"]}), when="before"), matching=lists
    )
    outcome, journal = scene.run()
    assert (outcome.code, outcome.failed[0][0]) == (ExitCode.ROLLED_BACK, identity_of(AFTER[0]))
    assert "put it back" in outcome.failed[0][1]
    assert scene.owned() == before
    scene.proxy.plan(call(lambda _: scene.by_hand("DELETE", AFTER[4]), when="before"), matching=lists)
    outcome, journal = scene.run()
    assert (outcome.code, outcome.failed[0][0]) == (ExitCode.ROLLED_BACK, identity_of(AFTER[4]))
    assert scene.owned() == before


def test_with_continue_only_what_needs_the_failed_one_is_left_out_too(scene: Scene) -> None:
    before = scene.owned()
    scene.proxy.plan(
        refuse(400),
        matching=lambda request: request.method == "POST" and to("validatingadmissionpolicies")(request),
        times=None,
    )
    outcome, journal = scene.run(on_failure=OnFailure.CONTINUE)
    assert outcome.code is ExitCode.PARTLY_APPLIED
    policy, binding = identity_of(AFTER[6]), identity_of(AFTER[7])
    assert dict(outcome.failed).keys() == {policy, binding}
    assert str(policy) in dict(outcome.failed)[binding]
    assert len(outcome.standing) == CHANGES - 2
    assert scene.owned().keys() == (before.keys() | {change.identity for change in scene.planned if change.after}) - {
        change.identity
        for change in scene.planned
        if change.action is Action.DELETE or change.identity in (policy, binding)
    }
    assert journal.calls == ["begin", "commit"]


def test_with_stop_everything_stays_for_a_person_to_look_at(scene: Scene) -> None:
    scene.proxy.plan(refuse(400), at=8, matching=POLICIES)
    outcome, journal = scene.run(on_failure=OnFailure.STOP, concurrency=1)
    assert (outcome.code, len(outcome.standing), len(outcome.failed)) == (ExitCode.ROLLBACK_INCOMPLETE, 7, 1)
    assert journal.calls == ["begin"]
    assert scene.proxy.count(POLICIES) == 8


class Editor(threading.Thread):
    """Somebody who edits the same policies all the time, each edit on what is there, and remembers the last of each."""

    def __init__(self, connection: Connection, paths: dict[Identity, str]) -> None:
        super().__init__(name="editor")
        self.last: dict[Identity, str] = {}
        self.turn = threading.Lock()
        self.ended = threading.Event()
        self._connection = connection
        self._paths = paths

    def run(self) -> None:
        numbers = itertools.count(1)
        while not self.ended.is_set():
            for identity, path in self._paths.items():
                with self.turn:
                    self._edit(identity, path, f"edit {next(numbers)}")

    def _edit(self, identity: Identity, path: str, message: str) -> None:
        try:
            found: Any = self._connection.get(path)
            found["spec"]["rules"][0]["validate"]["message"] = message
            self._connection.send("PUT", path, body=found)
            self.last[identity] = message
        except ServerRefused:
            """It is gone, or somebody else was faster: nothing was edited."""


def message_of(body: JsonObject | None) -> str:
    return str(body["spec"]["rules"][0]["validate"]["message"]) if body else ""


def test_who_edits_all_the_time_never_loses_an_edit_to_writes_nor_to_undos(scene: Scene) -> None:
    bodies = (cluster_policy("changed"), cluster_policy("withdrawn"), cluster_policy("new"))
    paths = {identity_of(body): f"/apis/kyverno.io/v1/clusterpolicies/{body['metadata']['name']}" for body in bodies}
    editor = Editor(Connection.open(kubeconfig=str(scene.plane.kubeconfig)), paths)
    editor.start()
    ends = set()
    try:
        for number in range(1, 13):
            with editor.turn:
                live = scene.direct.observe().objects
                wanted = AFTER if number % 2 else BEFORE
                changes = pipeline.prepare(scene.direct, desired(*wanted), allowed=ALLOWED).plan.changes
                editor.last.clear()
            if number % 3 == 0:
                scene.proxy.plan(refuse(400), at=len([c for c in changes if c.action is not Action.UNCHANGED]))
            outcome = execute(scene.through, changes, Stop(), settings=replace(SETTINGS, concurrency=2))
            scene.proxy.clear()
            with editor.turn:
                ends.add(outcome.code)
                for identity, message in editor.last.items():
                    found = scene.direct.read(identity)
                    assert message_of(found) == message, (outcome, message_of(live.get(identity)))
    finally:
        editor.ended.set()
        editor.join()
    assert not ends - {ExitCode.OK, ExitCode.ROLLED_BACK, ExitCode.ROLLBACK_INCOMPLETE}
    assert len(ends) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """The program before the same cluster, reached through the proxy."""

    scene: Scene
    programs: Programs
    snapshot: str

    def run(self, *command: str, expect: int, **variables: str) -> str:
        done = self.programs.with_(**variables).run("insights-applier", *command)
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def command(scene: Scene, programs: Programs, insights: InsightsStandIn, tmp_path: Path) -> Command:
    through = programs.with_(
        KUBECONFIG=str(tmp_path / "proxied.kubeconfig"), VALIDATE_POLICIES="false", INSIGHTS_ALLOW_WEAKEN="true"
    )
    insights.publish(CLUSTER, answer(*AFTER))
    assert through.run("insights-renderer", "render", "--out", "snapshot").returncode == 0
    return Command(scene=scene, programs=through, snapshot=str(programs.directory / "snapshot"))


def test_a_dry_run_sends_no_write_at_all_and_waits_for_nobody(command: Command) -> None:
    held = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": lock.LEASE, "namespace": "insights-agent"},
        "spec": {"holderIdentity": "another", "leaseDurationSeconds": 3600, "renewTime": "2026-01-01T00:00:00.000000Z"},
    }
    command.scene.plane.api.call("POST", LEASES, held)
    before = command.scene.owned()
    for asked in (("apply", command.snapshot), ("sync", "--max-delete", "100%")):
        shown = command.run(*asked, expect=ExitCode.OK, DRY_RUN="true")
        assert "Dry run, nothing was written: Applied 6, Updated 2, Removed 4, Failed 0" in shown
    assert command.scene.proxy.count(is_write) == 0
    assert command.scene.owned() == before


def test_when_another_run_takes_the_lease_nothing_more_is_written_and_it_is_told_whose_turn_it_is(
    command: Command,
) -> None:
    proxy, api, before = command.scene.proxy, command.scene.plane.api, command.scene.owned()
    refused = threading.Event()

    def steal(_: Request) -> None:
        path = f"{LEASES}/{lock.LEASE}"
        taken = api.call("GET", path)
        taken["spec"] |= {"holderIdentity": "another", "leaseTransitions": 7}
        api.call("PUT", path, taken)
        assert refused.wait(60)

    def renewal(exchange: Exchange) -> None:
        answered = exchange.forward()
        exchange.send(answered)
        if answered.status == 409:
            refused.set()

    def after_the_news(_: Request) -> None:
        """Writes that were started before the news had come may pass, but not all of them before it has."""
        if refused.is_set():
            time.sleep(1)

    proxy.plan(call(steal, when="after"), at=5, matching=POLICIES)
    proxy.plan(call(after_the_news, when="before"), matching=POLICIES, times=None)
    proxy.plan(renewal, matching=lambda request: request.method == "PUT" and request.resource == "leases", times=None)
    shown = command.run("apply", command.snapshot, "--concurrency", "1", expect=ExitCode.ROLLBACK_INCOMPLETE)
    # Who writes and who renews may hear of it in either order.
    assert 5 <= proxy.count(POLICIES) < 12
    assert "another run took the Lease" in shown
    assert shown.count("It is left to the run that has the lock now.") >= 5
    taken = api.call("GET", f"{LEASES}/{lock.LEASE}")
    assert taken["spec"]["holderIdentity"] == "another"
    # The other run ends, and any next one finds the journal.
    taken["spec"]["holderIdentity"] = ""
    api.call("PUT", f"{LEASES}/{lock.LEASE}", taken)
    command.run("recover", expect=ExitCode.OK)
    assert command.scene.owned() == before


def test_a_second_signal_ends_it_and_says_that_recover_finishes(command: Command) -> None:
    proxy, before = command.scene.proxy, command.scene.owned()
    proxy.plan(refuse(403), at=5, matching=POLICIES, times=None)
    with command.programs.start("insights-applier", "apply", command.snapshot, "--grace", "60s") as process:
        assert process.stderr is not None
        sent = 0.0
        told = ""
        for line in process.stderr:
            told += line
            if "could not be undone" not in line:
                continue
            # One that comes too soon after the first was heard is taken for a wrapper's double, so it is sent again.
            if not sent or time.monotonic() > sent + 1.5:
                process.send_signal(signal.SIGTERM)
                sent = time.monotonic()
        process.wait(60)
    assert process.returncode == ExitCode.ROLLBACK_INCOMPLETE
    assert "second signal" in told
    assert "insights-applier recover" in told
    assert command.scene.plane.api.call("GET", f"{LEASES}/{lock.LEASE}")["spec"]["holderIdentity"] == ""
    proxy.clear()
    command.run("recover", expect=ExitCode.OK)
    assert command.scene.owned() == before


def test_continue_leaves_out_what_validation_refuses_and_fails(command: Command, insights: InsightsStandIn) -> None:
    broken = admission_policy("broken")
    broken["spec"]["unknownField"] = True
    insights.publish(CLUSTER, answer(*AFTER, broken, admission_binding("broken", policy="broken")))
    allowed = ("--max-delete", "100%", "--on-failure", "continue")
    tried = json.loads(command.run("sync", *allowed, "--dry-run", expect=ExitCode.PARTLY_APPLIED).splitlines()[-1])
    done = json.loads(command.run("sync", *allowed, expect=ExitCode.PARTLY_APPLIED).splitlines()[-1])
    for line in (tried, done):
        names = {name for key in ("applied", "updated", "removed") for name in line[key]}
        assert not line["success"]
        assert len(line["failed"]) == 2
        assert not any("broken" in name for name in names)
    assert "unknownField" in done["error"]
    told = {(status["policyName"], status["status"]) for status in insights.statuses}
    assert ("broken", "failed") in told
    assert ("changed", "success") in told
    insights.publish(CLUSTER, answer(broken))
    command.run("sync", *allowed, "--on-failure", "rollback", expect=ExitCode.INVALID_POLICY)
