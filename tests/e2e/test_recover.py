"""A run that is killed at any of its writes is recovered: the cluster is as before, or as it was to be."""

from __future__ import annotations

import base64
import json
import random
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from applier import recover_command
from applier.change import Action, Change
from applier.cluster.config_maps import KubernetesConfigMaps
from applier.cluster.policies import KubernetesCluster
from applier.journal import journal, sealed
from applier.journal.configmaps import JOURNALS, ConfigMapStore
from applier.journal.format import Fencing, JournalError
from applier.journal.found import journals
from applier.journal.key import Key
from applier.journal.store import Store
from applier.lock import LEASE
from applier.recover_command import RecoverSettings
from applier.recovery import Journalling
from ci.testbed.controlplane import ControlPlane
from renderer.errors import ExitCode
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content
from tests.support.cluster import AGENT_NAMESPACE
from tests.support.insights import InsightsStandIn
from tests.support.killed_runs import AFTER, CHANGES, KEY, Run, Runs, kill
from tests.support.policies import answer, cluster_policy, desired, exception, identity_of, validating_policy
from tests.support.programs import CLUSTER, Programs
from tests.support.proxy import Proxy, call, not_to
from tests.support.workflow import applier, by_hand, collection, edit, render, until

pytestmark = pytest.mark.cluster

LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{AGENT_NAMESPACE}/leases"
CONFIG_MAPS = f"/api/v1/namespaces/{AGENT_NAMESPACE}/configmaps"
#: Two chunks and the head; the head as committed, the chunks gone, and the head.
JOURNAL_WRITES = 7
FOREIGN = (cluster_policy("foreign"), exception("foreign"), validating_policy("foreign"))


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    with Runs() as program:
        yield program


class Bed:
    """A cluster that holds BEFORE and some policies of others, and a run through a proxy that makes it hold AFTER."""

    def __init__(
        self,
        plane: ControlPlane,
        proxy: Proxy,
        directory: Path,
        runs: Runs,
        *,
        kubeconfig: str = "",
        kinds: Sequence[str] = (),
    ) -> None:
        self.plane, self.proxy, self.runs = plane, proxy, runs
        kubeconfig = kubeconfig or str(proxy.write_kubeconfig(directory / "kubeconfig"))
        self.run = Run(kubeconfig=kubeconfig, directory=str(directory), kinds=kinds)
        self.here = self.run.with_(kubeconfig=str(plane.kubeconfig))
        self.connection = self.here.connect()
        self.adapter = KubernetesCluster(self.connection, cache=directory / "cache")
        for body in FOREIGN:
            by_hand(plane.api, body)
        self.foreign = self._foreign()
        assert self.here.make() == ExitCode.OK
        self.after = self.owned()
        self.reset()
        self.before = self.owned()

    def reset(self) -> None:
        """Make it hold BEFORE."""
        assert self.here.with_(after=False).make() == ExitCode.OK

    def owned(self) -> dict[Identity, JsonObject]:
        """Every policy's content, but for the others' ones."""
        return {
            identity: content(body, identity.kind)
            for identity, body in self.adapter.observe().objects.items()
            if identity.name != "foreign"
        }

    def _foreign(self) -> list[JsonObject]:
        found = self.adapter.observe().objects
        return [body for identity, body in sorted(found.items()) if identity.name == "foreign"]

    def killed(self, at: int, *, when: str, **different: object) -> bool:
        """Run, and kill it at that write; False when it ended before it came so far."""
        run = self.run.with_(**different)
        self.proxy.plan(call(lambda _: kill(run), when=when), matching=not_to("leases"), at=at)  # type: ignore[arg-type]
        code = self.runs.run(run)
        self.proxy.wait_until_left()
        self.proxy.clear()
        assert code in (0, -signal.SIGKILL)
        return code != 0

    def recover(self, *, key: Key | None = KEY, store: Store | None = None, **different: object) -> tuple[int, str]:
        """Recover in this process; the exit code, and what is shown."""
        lines: list[str] = []
        settings = RecoverSettings(
            locking=self.here.locking(),
            journalling=Journalling(store=store or self.store(), key=key),
            writing=self.here.writing(),
            echo=lines.extend,
            **different,  # type: ignore[arg-type] # names are checked at run time
        )
        code = recover_command.recover(self.adapter, self.adapter, settings)
        return int(code), "\n".join(lines)

    def store(self) -> Store:
        """The ConfigMaps."""
        return ConfigMapStore(KubernetesConfigMaps(self.connection), AGENT_NAMESPACE)

    def require_clean(self) -> None:
        """No journal is left, the Lease is released, and what is not ours is what it was, to the byte."""
        assert self.config_maps() == []
        assert self.lease()["spec"]["holderIdentity"] == ""
        assert self._foreign() == self.foreign

    def config_maps(self) -> list[JsonObject]:
        """What is kept of journals."""
        items: list[JsonObject] = self.plane.api.call("GET", CONFIG_MAPS)["items"]
        return [item for item in items if item["metadata"]["name"].startswith(JOURNALS.prefix)]

    def lease(self) -> JsonObject:
        """The lock."""
        found: JsonObject = self.plane.api.call("GET", f"{LEASES}/{LEASE}")
        return found


@pytest.fixture
def bed(cluster: ControlPlane, tmp_path: Path, runs: Runs) -> Iterator[Bed]:
    with Proxy(cluster) as proxy:
        yield Bed(cluster, proxy, tmp_path, runs)


@pytest.fixture
def commands(programs: Programs) -> Programs:
    """The programs, with less patience, and no kyverno CLI."""
    return programs.with_(VALIDATE_POLICIES="false", INSIGHTS_LEASE_DURATION="9s", INSIGHTS_MAX_DELETE="100%")


@pytest.mark.parametrize(("when", "concurrency"), [("instead", 1), ("after", 8)])
def test_killed_at_any_write_it_is_before_or_after(bed: Bed, when: str, concurrency: int) -> None:
    outcomes = []
    at = 1
    while bed.killed(at, when=when, concurrency=concurrency):
        assert bed.recover()[0] == ExitCode.OK
        bed.require_clean()
        held = bed.owned()
        assert held in (bed.before, bed.after), f"in between after a kill at write {at}"
        outcomes.append(held == bed.after)
        if outcomes[-1]:
            bed.reset()
        at += 1
    assert len(outcomes) == CHANGES + JOURNAL_WRITES
    # Once the head says that it is committed, and not a write earlier, it stays.
    committed = outcomes.index(True)
    assert all(outcomes[committed:])
    assert committed == (CHANGES + 4 if when == "instead" else CHANGES + 3)


def test_a_recovery_that_is_killed_is_recovered_too(bed: Bed) -> None:
    assert bed.killed(CHANGES + 4, when="instead")  # all is written, and nothing committed
    for at in (1, 8, 16):
        assert bed.killed(at, when="after", recovers=True) is (at < 16)
    assert bed.recover()[0] == ExitCode.OK
    bed.require_clean()
    assert bed.owned() == bed.before


def test_the_rest_can_be_made_instead(bed: Bed) -> None:
    for at in (4, 11):
        assert bed.killed(at, when="after", concurrency=8)
        code, shown = bed.recover(forward=True)
        assert (code, "everything is as it was planned" in shown) == (0, True)
        bed.require_clean()
        assert bed.owned() == bed.after
        bed.reset()


def test_what_somebody_changed_since_stands_and_is_told(bed: Bed) -> None:
    assert bed.killed(CHANGES + 3, when="after")
    changed = cluster_policy("changed")
    edit(bed.plane.api, changed, [{"op": "replace", "path": "/spec/background", "value": False}])
    code, shown = bed.recover()
    assert code == ExitCode.ROLLBACK_INCOMPLETE
    assert "left alone ClusterPolicy/changed: somebody else changed its spec" in shown
    held = bed.owned()
    theirs = held[identity_of(changed)]
    assert theirs["spec"]["background"] is False
    assert held == {**bed.before, identity_of(changed): theirs}
    bed.require_clean()


def test_the_command_shows_what_is_there_and_takes_it_back(bed: Bed, commands: Programs) -> None:
    assert bed.killed(10, when="after")
    there, lease = bed.config_maps(), bed.lease()
    shown = applier(commands, "recover", "--show")
    assert "Its signature is right" in shown
    assert "create ClusterPolicy/new: made" in shown
    assert "delete ClusterPolicy/withdrawn: not made" in shown
    assert (bed.config_maps(), bed.lease()) == (there, lease)
    assert "everything is as it was before" in applier(commands, "recover")
    assert bed.owned() == bed.before
    bed.require_clean()
    nothing = f"Nothing to recover in namespace {AGENT_NAMESPACE}."
    assert nothing in applier(commands, "recover")
    assert nothing in applier(commands, "recover", "--show")


def test_the_next_apply_takes_it_back_first(bed: Bed, commands: Programs, insights: InsightsStandIn) -> None:
    assert bed.killed(10, when="after")
    snapshot = render(commands, insights, *AFTER)
    there = bed.config_maps()
    assert "keeps a journal" in applier(commands, "apply", snapshot, "--allow-weaken", "--dry-run")
    assert bed.config_maps() == there
    shown = applier(commands, "apply", snapshot, "--allow-weaken")
    assert "Taking back what a dead run wrote" in shown
    assert "Applied 5, Updated 4, Removed 6, Failed 0" in shown
    assert bed.owned() == bed.after
    bed.require_clean()


def test_a_journal_of_another_token_is_for_people_to_trust_and_no_obstacle_for_sync(
    bed: Bed, commands: Programs, insights: InsightsStandIn
) -> None:
    snapshot = render(commands, insights, *AFTER)
    assert bed.killed(10, when="after", secret="a-token-that-was-rotated")
    held = bed.owned()
    for command in (["recover"], ["recover", "--roll-forward"], ["apply", snapshot]):
        assert "can't be verified" in applier(commands, *command, expect=ExitCode.INPUT)
    assert bed.owned() == held
    assert "as it was before" in applier(commands, "recover", "--trust-journal")
    assert bed.owned() == bed.before
    bed.require_clean()
    assert bed.killed(10, when="after", secret="a-token-that-was-rotated")
    assert "planned afresh" in applier(commands, "sync")
    assert bed.owned() == bed.after
    bed.require_clean()


def test_without_a_key_a_person_is_asked(bed: Bed, commands: Programs, insights: InsightsStandIn) -> None:
    keyless = commands.without("FAIRWINDS_TOKEN")
    assert bed.killed(10, when="after")
    shown = applier(keyless, "recover", expect=ExitCode.INPUT)
    assert "create ClusterPolicy/new: made" in shown
    assert "no key" in shown
    asked: list[str] = []

    def ask(question: str) -> bool:
        asked.append(question)
        return len(asked) > 1

    def interrupt(_question: str) -> bool:
        signal.raise_signal(signal.SIGINT)
        return True

    with pytest.raises(KeyboardInterrupt):
        bed.recover(key=None, ask=interrupt)
    with pytest.raises(JournalError, match="as you said"):
        bed.recover(key=None, ask=ask)
    assert bed.recover(key=None, ask=ask)[0] == ExitCode.OK
    assert asked == ["Take back what was made?"] * 2
    assert bed.owned() == bed.before
    unsigned = applier(keyless, "apply", render(commands, insights, *AFTER), "--allow-weaken")
    assert "The journal is not signed" in unsigned


def test_a_journal_on_disk(bed: Bed, commands: Programs, tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    on_disk = commands.with_(INSIGHTS_JOURNAL=str(directory))
    key = tmp_path / "key"
    key.write_text("a-secret-of-our-own")
    for at in (2, CHANGES):  # the journal's own writes are none to the server
        assert bed.killed(at, when="after", journal=str(directory), secret="a-secret-of-our-own")
        assert len(list(directory.glob("*.head.json"))) == 1
        applier(on_disk, "recover", "--journal-key", str(key))
        assert bed.owned() == bed.before
        assert list(directory.iterdir()) == []
        bed.require_clean()


def test_a_journal_that_was_put_back_does_not_undo_what_a_later_run_finished(
    bed: Bed, commands: Programs, tmp_path: Path
) -> None:
    directory = tmp_path / "journal"
    assert bed.killed(9, when="after")
    signed = bed.config_maps()
    assert bed.recover()[0] == ExitCode.OK
    assert bed.killed(9, when="after", journal=str(directory))
    assert bed.here.make() == ExitCode.OK  # which does not look there
    for found in signed:
        body = {
            key: found["metadata"][key]
            for key in ("name", "namespace", "labels", "annotations")
            if key in found["metadata"]
        }
        bed.plane.api.call("POST", CONFIG_MAPS, {**found, "metadata": body})
    assert "A later run has finished since" in applier(commands, "recover", "--show")
    for place in (commands, commands.with_(INSIGHTS_JOURNAL=str(directory))):
        assert "a later run has finished since" in applier(place, "recover")
        assert bed.owned() == bed.after
    assert list(directory.iterdir()) == []
    bed.require_clean()


def test_the_charts_account_can_journal_and_recover(
    cluster: ControlPlane, chart_account: str, tmp_path: Path, runs: Runs
) -> None:
    kinds = ("ClusterPolicy", "Policy", "ValidatingPolicy", "ValidatingAdmissionPolicy")
    with Proxy(cluster) as proxy:
        kubeconfig = str(proxy.write_kubeconfig(tmp_path / "chart", token=chart_account))
        bed = Bed(cluster, proxy, tmp_path, runs, kubeconfig=kubeconfig, kinds=kinds)
        assert bed.killed(9, when="after")
        assert bed.owned() != bed.before
        assert bed.runs.run(bed.run.with_(recovers=True)) == ExitCode.OK
        assert bed.owned() == bed.before
        bed.require_clean()


def test_500_policies_of_20_kb_are_journalled_for_real(cluster: ControlPlane, tmp_path: Path) -> None:
    run = Run(kubeconfig=str(cluster.kubeconfig), directory=str(tmp_path))
    store = run.store(run.connect())
    noise = random.Random(0)
    (policy,) = desired(cluster_policy("large"))

    def change() -> Change:
        body = {**policy.body, "spec": {"notes": noise.randbytes(10_000).hex()}}
        held = {**body, "metadata": {**body["metadata"], "uid": "u", "resourceVersion": "1"}}
        return Change(identity=policy.identity, action=Action.UPDATE, before=held, after=body)

    changes = [change() for _ in range(500)]
    writer = journal.Run(fencing=Fencing(lease="lease-uid", transitions=1), holder="h", cluster={}, mode="rollback")
    begun = journal.StoredJournal(store, lambda: writer, key=KEY)
    begun.begin(changes)
    (found,) = journals(store, KEY, cluster={}, lease="lease-uid")
    assert found.changes == tuple(changes)
    items = cluster.api.call("GET", CONFIG_MAPS)["items"]
    sizes = [len(base64.b64decode(item["binaryData"]["chunk"])) for item in items if "binaryData" in item]
    assert 5 < len(sizes) < 50
    assert max(sizes) < 1_048_576 < sum(sizes)
    begun.commit()
    assert store.heads() == {}
    assert store.headless("lease-uid") == set()


def test_a_before_image_that_an_upgraded_kyverno_refuses_stops_an_apply_and_not_a_sync(
    bed: Bed, commands: Programs, insights: InsightsStandIn
) -> None:
    snapshot = render(commands, insights, *AFTER)
    api = bed.plane.api
    crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/clusterpolicies.kyverno.io"
    assert bed.killed(CHANGES + 3, when="after")
    held, had = bed.owned(), api.call("GET", crd)["spec"]
    stored = next(number for number, one in enumerate(had["versions"]) if one["storage"])
    path = f"/spec/versions/{stored}/schema/openAPIV3Schema/properties/spec/properties/background"
    probe = cluster_policy("probe")

    def accepted() -> bool:
        return api.ask("POST", collection(probe), probe, params={"dryRun": "All"}).ok

    def change(value: JsonObject) -> None:
        patch = [{"op": "replace", "path": path, "value": value}]
        api.call("PATCH", crd, patch, content_type="application/json-patch+json")

    was = had["versions"][stored]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["background"]
    try:
        change({**was, "enum": [False], "default": False})
        until(lambda: not accepted())
        for command in (["recover", "--grace=1s"], ["apply", snapshot, "--allow-weaken", "--grace=1s"]):
            shown = applier(commands, *command, expect=ExitCode.ROLLBACK_INCOMPLETE)
            assert "ClusterPolicy/withdrawn" in shown
            assert "Unsupported value" in shown
        # All else is as it was, and the journal is kept.
        left = {identity: body for identity, body in bed.before.items() if identity.name != "withdrawn"}
        now = bed.owned()
        assert {identity: now[identity] for identity in left} == left
        assert bed.config_maps()
        quiet = [{**body, "spec": {**body["spec"], "background": False}} if body["kind"] == "ClusterPolicy" else body
                 for body in AFTER]  # fmt: skip
        insights.publish(CLUSTER, answer(*quiet))
        assert "planned afresh" in applier(commands, "sync", "--grace=1s")
        assert bed.owned().keys() == held.keys()
        bed.require_clean()
    finally:
        change(was)
        until(accepted)


def tampered(bed: Bed, how: str) -> None:
    """Change what is kept of the journal as whoever may write ConfigMaps can."""
    api = bed.plane.api
    (head,) = [one for one in bed.config_maps() if "head" in one.get("data", {})]
    chunk = next(one for one in bed.config_maps() if "binaryData" in one)
    fields = json.loads(head["data"]["head"])
    signed = {name: value for name, value in fields.items() if name != "hmac"}
    if how == "chunk":
        # It is immutable, so it is made anew.
        api.call("DELETE", f"{CONFIG_MAPS}/{chunk['metadata']['name']}")
        kept = {key: chunk["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
        forged = base64.b64encode(b"forged").decode()
        api.call("POST", CONFIG_MAPS, {**chunk, "metadata": kept, "binaryData": {"chunk": forged}})
        return
    if how == "elsewhere":
        signed["cluster"] = dict.fromkeys(signed["cluster"], "another-uid")
        signed["fencing"] = {**signed["fencing"], "lease": "another-lease"}
        sealed_head = sealed.seal(signed, KEY).decode()
    elif how == "forged":
        sealed_head = sealed.seal(signed, Key(b"whatever a forger has")).decode()
    else:
        sealed_head = json.dumps({**fields, "mode": "continue"})
    api.call("PUT", f"{CONFIG_MAPS}/{head['metadata']['name']}", {**head, "data": {"head": sealed_head}})


@pytest.mark.parametrize(
    ("how", "says", "stays"),
    [
        ("chunk", "is not what the head says", 0),
        ("head", "can't be verified: its signature is wrong", 0),
        ("forged", "can't be verified: its signature is wrong", 0),
        ("elsewhere", "it is of another cluster", 1),
    ],
)
def test_a_journal_that_is_not_what_our_run_wrote_here_is_never_acted_on(
    bed: Bed, commands: Programs, insights: InsightsStandIn, how: str, says: str, stays: int
) -> None:
    snapshot = render(commands, insights, *AFTER)
    assert bed.killed(10, when="after")
    held = bed.owned()
    tampered(bed, how)
    kept = bed.config_maps()
    for command in (["recover"], ["recover", "--roll-forward"], ["apply", snapshot, "--allow-weaken"]):
        assert says in applier(commands, *command, expect=ExitCode.INPUT)
    assert (bed.owned(), bed.config_maps()) == (held, kept)
    assert "planned afresh" in applier(commands, "sync")
    assert bed.owned() == bed.after
    assert len([one for one in bed.config_maps() if "head" in one.get("data", {})]) == stays
