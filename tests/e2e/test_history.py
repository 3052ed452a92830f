"""Revisions on a real server: kept, listed, put back exactly, and refused when somebody else wrote them."""

from __future__ import annotations

import base64
import copy
import json
import random
import zlib
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner

from applier.cli import cli
from applier.cluster.config_maps import KubernetesConfigMaps
from applier.cluster.policies import KubernetesCluster
from applier.history.format import Origin
from applier.history.revisions import REVISIONS, Keeper, policies_of, revisions
from applier.journal.configmaps import ConfigMapStore
from applier.journal.key import Key
from applier.lock.elector import Held
from applier.stop import Stop
from applier.transaction.execution import Outcome
from ci.testbed.controlplane import ControlPlane
from renderer.errors import ExitCode, Failure
from renderer.manifest.document import Policy
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content
from renderer.manifest.ownership import is_owned
from renderer.manifest.policyset import PolicySet
from renderer.snapshot import render_files
from tests.e2e.test_apply import SET
from tests.support.cluster import AGENT_NAMESPACE
from tests.support.insights import InsightsStandIn
from tests.support.policies import answer, cluster_policy, desired, exception, namespaced_policy, validating_policy
from tests.support.programs import CLUSTER, TOKEN, Programs
from tests.support.workflow import by_hand, edit

pytestmark = pytest.mark.cluster

CONFIG_MAPS = f"/api/v1/namespaces/{AGENT_NAMESPACE}/configmaps"
#: Three sets, one after the other; nothing in the last is in the first.
SETS = (
    SET,
    (cluster_policy("one", message="Two."), cluster_policy("five"), SET[1], SET[2], SET[3]),
    (cluster_policy("five"), validating_policy("six"), exception("seven")),
)


class Here:
    """The applier in this process, which is quick; the kyverno CLI is not asked, for others test it."""

    def __init__(self, programs: Programs) -> None:
        self.directory = programs.directory
        self._environment = {**programs.environment, "VALIDATE_POLICIES": "false", "INSIGHTS_ALLOW_WEAKEN": "true"}

    def with_(self, **variables: str) -> Here:
        """The same with more variables, or others; "" is as good as none."""
        other = copy.copy(self)
        other._environment = {**self._environment, **variables}
        return other

    def run(self, *command: str, expect: int = 0) -> str:
        """Run it to the end; everything that it shows."""
        try:
            done = CliRunner(env=self._environment).invoke(cli, command, standalone_mode=False)
        finally:
            structlog.reset_defaults()
        if done.exception is not None and not isinstance(done.exception, Failure):
            raise done.exception
        code = done.exception.code if isinstance(done.exception, Failure) else done.return_value
        shown = f"{done.output}{done.exception or ''}"
        assert code == expect, shown
        assert TOKEN not in shown
        return shown

    def listed(self, *flags: str) -> list[JsonObject]:
        """What `history -o json` lists."""
        found: list[JsonObject] = json.loads(self.run("history", "-o", "json", *flags))["revisions"]
        return found

    def snapshot(self, *bodies: JsonObject) -> str:
        """A new snapshot of these policies."""
        files = render_files(desired(*bodies), organization="acme", cluster="prod")
        directory = self.directory / files.digest
        for path, data in files.contents.items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_bytes(data)
        return str(directory)


@pytest.fixture
def here(programs: Programs) -> Here:
    return Here(programs)


def owned(adapter: KubernetesCluster) -> dict[Identity, JsonObject]:
    return {
        identity: content(body, identity.kind) for identity, body in adapter.observe().objects.items() if is_owned(body)
    }


def test_three_applies_and_back_to_the_first(here: Here, cluster: ControlPlane, adapter: KubernetesCluster) -> None:
    assert "No revision is kept in namespace insights-agent" in here.run("history")
    assert "No revision is kept" in here.run("rollback", expect=ExitCode.INPUT)
    by_hand(cluster.api, cluster_policy("foreign"))
    (foreign,) = adapter.observe().objects.items()
    held = []
    for bodies in SETS:
        last = here.snapshot(*bodies)
        here.run("apply", last)
        held.append(owned(adapter))
    here.run("apply", last)  # nothing to change
    found = here.listed()
    assert [(one["revision"], one["live"], one["verified"]) for one in found] == [
        (3, True, True), (2, False, True), (1, False, True),
    ]  # fmt: skip
    assert [(one["created"], one["updated"], one["deleted"]) for one in found] == [(2, 0, 4), (1, 1, 0), (4, 0, 0)]
    assert (found[0]["digest"], found[0]["organization"], found[0]["cluster"], found[0]["account"]) == (
        Path(last).name, "acme", "prod", "admin",
    )  # fmt: skip

    before = owned(adapter)
    assert "4 to create, 3 to delete" in here.run("rollback", "--to", "1", "--dry-run")
    assert (owned(adapter), here.listed()) == (before, found)
    shown = here.run("rollback", "--to", "1")
    assert "the next sync Insights'" in shown
    assert owned(adapter) == held[0]
    assert dict([foreign]).items() <= adapter.observe().objects.items()
    assert [(one["revision"], one["command"], one["live"]) for one in here.listed()][:2] == [
        (4, "rollback to 1", True), (3, "apply", False),
    ]  # fmt: skip
    here.run("rollback")  # by default to what was there before
    assert owned(adapter) == held[2]

    edit(cluster.api, SETS[2][0], [{"op": "replace", "path": "/spec/background", "value": False}])
    assert "changed since the latest one was put in place: ClusterPolicy/five" in here.run("history")
    here.run("rollback", "--to", "5")
    assert owned(adapter) == held[2]
    assert "These are kept: 1, 2, 3, 4, 5." in here.run("rollback", "--to", "6", expect=ExitCode.INPUT)
    here.run("apply", last, "--keep-revisions", "2")
    assert [one["revision"] for one in here.listed()] == [5, 4]
    assert len(cluster.api.call("GET", CONFIG_MAPS)["items"]) == 4  # two heads, each with its chunk


def test_a_sync_keeps_one_and_brings_its_set_back_after_a_rollback(
    here: Here, insights: InsightsStandIn, adapter: KubernetesCluster
) -> None:
    here.run("apply", here.snapshot(*SETS[0]))
    before = owned(adapter)
    insights.publish(CLUSTER, answer(*SETS[1]))
    here.run("sync")
    wanted = owned(adapter)
    here.run("rollback")
    assert owned(adapter) == before
    here.run("sync")
    assert owned(adapter) == wanted
    assert [(one["revision"], one["command"]) for one in reversed(here.listed())] == [
        (1, "apply"), (2, "sync"), (3, "rollback to 1"), (4, "sync"),
    ]  # fmt: skip


def test_what_somebody_else_wrote_is_listed_as_such_and_not_put_back(
    here: Here, cluster: ControlPlane, adapter: KubernetesCluster
) -> None:
    for bodies in SETS[:2]:
        here.run("apply", here.snapshot(*bodies))
    before = owned(adapter)
    first = here.listed()[1]["name"]
    head_path = f"{CONFIG_MAPS}/{REVISIONS.prefix}{first}"
    head = cluster.api.call("GET", head_path)
    fields = json.loads(head["data"]["head"])
    chunk_path = f"{head_path}-{fields['chunks'][0][:16]}"
    chunk = cluster.api.call("GET", chunk_path)
    held = json.loads(zlib.decompress(base64.b64decode(chunk["binaryData"]["chunk"])))
    held[0]["spec"]["failurePolicy"] = "Ignore"
    for packed, words in ((zlib.compress(json.dumps(held).encode()), "not what the head says"), (None, "is missing")):
        cluster.api.call("DELETE", chunk_path)  # for it can't be changed
        if packed:
            body = {**chunk, "binaryData": {"chunk": base64.b64encode(packed).decode()}}
            body["metadata"] = {key: chunk["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
            cluster.api.call("POST", CONFIG_MAPS, body)
        for trust in ((), ("--trust-history",)):
            assert words in here.run("rollback", *trust, expect=ExitCode.INPUT)
    for text, words in ((json.dumps({**fields, "policies": 1}), "signature is wrong"), ("{", "can't be read")):
        cluster.api.call("PUT", head_path, {**cluster.api.call("GET", head_path), "data": {"head": text}})
        assert words in here.run("history")
        here.run("rollback", expect=ExitCode.INPUT)
    assert owned(adapter) == before
    without = here.with_(FAIRWINDS_TOKEN="")
    assert "not verified" in without.run("history")
    assert "there is no key" in without.run("rollback", "--to", "2", expect=ExitCode.INPUT)
    rotated = here.with_(FAIRWINDS_TOKEN="tok-another-one-of-ours")
    assert "can't be verified" in rotated.run("rollback", "--to", "2", expect=ExitCode.INPUT)
    rotated.run("rollback", "--to", "2", "--trust-history")
    assert owned(adapter) == before


def test_a_run_that_may_not_keep_a_revision_has_still_done_its_work(
    here: Here, cluster: ControlPlane, adapter: KubernetesCluster
) -> None:
    journal = str(here.directory / "journal")
    snapshot = here.snapshot(*SETS[0])
    here.run("apply", snapshot, "--journal", journal)
    assert [one["revision"] for one in here.listed("--journal", journal)] == [1]
    Path(journal, "revisions").rename(Path(journal, "old"))
    Path(journal, "revisions").touch()
    shown = here.run("apply", here.snapshot(*SETS[1]), "--journal", journal)
    assert "The policies are in place, but no revision of them is kept" in shown
    assert len(owned(adapter)) == len(SETS[1])
    viewing = here.with_(KUBECONFIG=str(Path(cluster.kubeconfig).with_name("viewer.kubeconfig")))
    for command in (("history",), ("rollback",)):
        assert "may not read or keep a revision" in viewing.run(*command, expect=ExitCode.NOT_PERMITTED)
    away = here.directory / "away"
    away.write_text(Path(cluster.kubeconfig).read_text().replace(adapter.server, "https://127.0.0.1:1"))
    for command in (("history",), ("rollback",)):
        here.run(*command, "--kubeconfig", str(away), expect=ExitCode.UNAVAILABLE)


@pytest.mark.usefixtures("chart_account")
def test_the_charts_account_keeps_lists_and_puts_back(
    here: Here, cluster: ControlPlane, adapter: KubernetesCluster
) -> None:
    chart = here.with_(KUBECONFIG=str(Path(cluster.kubeconfig).with_name("worker.kubeconfig")))
    chart.run("apply", here.snapshot(cluster_policy("one"), namespaced_policy("two")))
    before = owned(adapter)
    chart.run("apply", here.snapshot(cluster_policy("three")), "--keep-revisions", "1")
    chart.run("apply", here.snapshot(cluster_policy("one"), namespaced_policy("two")))
    chart.run("apply", here.snapshot(cluster_policy("three")))
    chart.run("rollback")
    assert owned(adapter) == before
    assert [(one["revision"], one["live"]) for one in chart.listed()] == [(5, True), (4, False), (3, False), (2, False)]


def test_500_policies_of_20_kb_are_kept_for_real(cluster: ControlPlane, adapter: KubernetesCluster) -> None:
    noise = random.Random(0)
    (policy,) = desired(cluster_policy("large"))
    policies = PolicySet(
        Policy(
            identity=Identity(kind=policy.identity.kind, namespace="", name=f"large-{number}"),
            body={
                **policy.body,
                "metadata": {**policy.body["metadata"], "name": f"large-{number}"},
                "spec": {"notes": noise.randbytes(10_000).hex()},
            },
        )
        for number in range(500)
    )
    store = ConfigMapStore(KubernetesConfigMaps(adapter.connection), AGENT_NAMESPACE, REVISIONS)
    keeper = Keeper(
        cluster=adapter,
        store=store,
        key=Key(TOKEN.encode()),
        most=1,
        origin=Origin(command="apply"),
        policies=lambda: policies,
    )
    held = Held(holder="h", uid="lease-uid", transitions=1, taken_over=False, quiet_at=0.0)
    keeper.keep(held, Stop(), Outcome())
    (found,) = revisions(store, keeper.key, cluster=adapter.identity, lease="lease-uid")
    assert list(policies_of(store, found)) == list(policies)
    items = cluster.api.call("GET", CONFIG_MAPS)["items"]
    sizes = [len(base64.b64decode(item["binaryData"]["chunk"])) for item in items if "binaryData" in item]
    assert 5 < len(sizes) < 50
    assert max(sizes) < 1_048_576 < sum(sizes)
