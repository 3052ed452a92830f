"""The rights in the rendered manifests: all of them are used, and each that is taken away is missed, and named."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest
import structlog
from click.testing import CliRunner

from applier import lock
from applier.cli import cli
from applier.cluster.connection import Connection
from applier.cluster.policies import KubernetesCluster
from ci.testbed import drift, pki
from ci.testbed.api import Api
from ci.testbed.controlplane import ControlPlane
from renderer.deploy import manifests, values
from renderer.errors import ExitCode, Failure
from renderer.manifest import yamlio
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import KINDS
from tests.support.cluster import AGENT_NAMESPACE
from tests.support.insights import InsightsStandIn
from tests.support.jobs import HELD, RunnerProgram, cron_job, until
from tests.support.one_of_each import one_of_each
from tests.support.policies import answer, identity_of, validating_policy
from tests.support.programs import CLUSTER, TOKEN, Programs
from tests.support.proxy import Predicate, Proxy, Request, not_to, refuse, reset_before
from tests.support.workflow import contents

pytestmark = [pytest.mark.cluster, pytest.mark.jobs]

_LEASE: Final = f"/apis/coordination.k8s.io/v1/namespaces/{AGENT_NAMESPACE}/leases/{lock.LEASE}"
_FREE_LEASE: Final = {
    "apiVersion": "coordination.k8s.io/v1",
    "kind": "Lease",
    "metadata": {"name": lock.LEASE, "namespace": AGENT_NAMESPACE},
}
_PATIENCE_S: Final = 60.0
_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
#: What every account may ask; no role of ours grants it.
_FOR_ALL: Final = {"selfsubjectaccessreviews", "selfsubjectreviews"}

#: Answered with 403, and the run does without: other namespaces' labels make a guard less cautious only.
_REFUSED_WITHOUT_HARM: Final = {
    "/api/v1/namespaces/default",
    "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
}
_SPARES_US: Final = "spares-us"
_DENIED: Final = ExitCode.NOT_PERMITTED
_LACKS: Final = "This account lacks rights that the run needs; nothing was written."
_GROUPS: Final = {kind.group for kind in KINDS}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Right:
    """One verb on one resource; `names` are the only objects that it is good for, "" means all."""

    group: str
    resource: str
    verb: str
    names: str = ""

    def __str__(self) -> str:
        return f"{self.verb} on {self.resource}.{self.group}".rstrip(".")


_MAKE_LEASE: Final = Right(group="coordination.k8s.io", resource="leases", verb="create")


def documents(part: str) -> list[JsonObject]:
    """The rendered accounts, roles and bindings of a part."""
    files = manifests.render(values.read(["image=a:1", "organization=acme", "cluster=prod", f"parts={part}"]))
    return [document.value for document in yamlio.load(files[f"{part}-rbac.yaml"], source=part)]


def rights_of(role: JsonObject) -> set[Right]:
    return {
        Right(group=group, resource=resource, verb=verb, names=name)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }


def without(role: JsonObject, rights: set[Right]) -> JsonObject:
    """The role with every right but those, a rule for each."""
    rules = [
        {"apiGroups": [one.group], "resources": [one.resource], "verbs": [one.verb]}
        | ({"resourceNames": [one.names]} if one.names else {})
        for one in sorted(rights_of(role) - rights)
    ]
    return {**role, "rules": rules}


def used(request: Request, granted: set[Right]) -> Right:
    """The right that the request needs, in the terms of those that are granted."""
    below = request.path.partition(f"/{request.resource}")[2].strip("/")
    verb = _VERBS.get(request.method) or ("watch" if "watch" in request.query else "get" if below else "list")
    name = below if verb != "create" else ""
    right = Right(group=request.group, resource=request.resource, verb=verb, names=name)
    unnamed = Right(group=request.group, resource=request.resource, verb=verb)
    return unnamed if unnamed in granted else right


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A service account of the rendered manifests, by its name, with the roles that are bound to it."""

    name: str
    api: Api
    server: str
    authority: Path
    token: str
    roles: tuple[JsonObject, ...]

    @property
    def rights(self) -> set[Right]:
        return {right for role in self.roles for right in rights_of(role)}

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig of the account there; gives the path back."""
        path.write_bytes(pki.kubeconfig(self.server, self.authority.read_bytes(), pki.token_user(self.token)))
        return path

    def take_away(self, *rights: Right) -> None:
        """Take these rights away; returns when the server knows."""
        assert set(rights) <= self.rights
        for role in self.roles:
            self.api.apply(without(role, set(rights)))
        for right in rights:
            self._wait(right, allowed=False)

    def give_back(self) -> None:
        """Give all of them back; returns when the server knows."""
        for role in self.roles:
            self.api.apply(role)
        for right in self.rights:
            self._wait(right, allowed=True)

    def _wait(self, right: Right, *, allowed: bool) -> None:
        attributes = {"group": right.group, "resource": right.resource, "verb": right.verb, "name": right.names}
        attributes["namespace"] = AGENT_NAMESPACE
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{AGENT_NAMESPACE}:{self.name}",
                "resourceAttributes": attributes,
            },
        }
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            answered = self.api.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
            if bool(answered["status"]["allowed"]) is allowed:
                return
            assert time.monotonic() < deadline, f"the server never took note: {right}"


def token_of(plane: ControlPlane, account: str) -> str:
    path = f"/api/v1/namespaces/{AGENT_NAMESPACE}/serviceaccounts/{account}/token"
    wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    return str(plane.api.call("POST", path, wanted)["status"]["token"])


@contextmanager
def rendered(plane: ControlPlane, part: str, name: str) -> Iterator[Account]:
    """The account of that name, as a part's manifests have it."""
    made = documents(part)
    for body in made:
        plane.api.apply(body)
    yield Account(
        name=name,
        api=plane.api,
        server=plane.server,
        authority=plane.credentials.authority,
        token=token_of(plane, name),
        roles=tuple(body for body in made if "rules" in body),
    )
    for body in made:
        plane.api.call("DELETE", plane.api.path_of(body))


@pytest.fixture
def account(cluster: ControlPlane) -> Iterator[Account]:
    with rendered(cluster, "sync", "kyverno-policy-sync") as made:
        yield made


def spares_us() -> JsonObject:
    """A policy that would deny our journal, were it not for the labels of our namespace."""
    body = validating_policy(_SPARES_US, expression="false")
    body["spec"]["validationActions"] = ["Deny"]
    body["spec"]["matchConstraints"]["namespaceSelector"] = {"matchLabels": {"team": "payments"}}
    return body


def named(suffix: str) -> list[JsonObject]:
    return [{**body, "metadata": {**body["metadata"], "name": f"policy-{suffix}"}} for body in one_of_each()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """A sync by the account, in this process, whose one run creates, changes and deletes a policy of each kind."""

    environment: dict[str, str]
    insights: InsightsStandIn
    adapter: KubernetesCluster

    def through(self, proxy: Proxy, account: Account) -> Sync:
        """The same through a proxy."""
        kubeconfig = proxy.write_kubeconfig(Path(self.environment["HOME"]) / "proxy", token=account.token)
        return replace(self, environment={**self.environment, "KUBECONFIG": str(kubeconfig)})

    def contents(self) -> dict[Identity, JsonObject]:
        """What the cluster holds."""
        return contents(self.adapter)

    def begin(self) -> None:
        """Bring the cluster to where that run starts."""
        self.insights.publish(CLUSTER, answer(*named("kept"), *named("gone")))
        self.run()
        for identity, body in self.adapter.observe().objects.items():
            if identity.name == "policy-kept":
                assert drift.change_a_leaf(self.adapter.connection, identity, body), identity
        self.insights.publish(CLUSTER, answer(*named("kept"), *named("new"), spares_us()))

    def run(self, *flags: str, code: int = 0, **variables: str) -> str:
        """Run it to the end, and give all that it shows."""
        environment = {**self.environment, "INSIGHTS_MAX_DELETE": "100%", "VALIDATE_POLICIES": "false", **variables}
        try:
            done = CliRunner(env=environment).invoke(cli, ["sync", *flags], standalone_mode=False)
        finally:
            structlog.reset_defaults()
        if done.exception is not None and not isinstance(done.exception, Failure):
            raise done.exception
        found = done.exception.code if isinstance(done.exception, Failure) else done.return_value
        shown = f"{done.output}{done.exception or ''}"
        assert TOKEN not in shown
        assert found == code, shown
        return shown


@pytest.fixture
def sync(programs: Programs, insights: InsightsStandIn, cluster: ControlPlane, account: Account) -> Sync:
    return Sync(
        environment={**programs.environment, "KUBECONFIG": str(account.kubeconfig(programs.directory / "account"))},
        insights=insights,
        adapter=KubernetesCluster(Connection.open(kubeconfig=str(cluster.kubeconfig))),
    )


def test_every_right_is_used_and_no_other_is_missed(sync: Sync, account: Account, cluster: ControlPlane) -> None:
    with Proxy(cluster) as proxy:
        watched = sync.through(proxy, account)
        watched.begin()
        watched.run()
        asked = [one for one in proxy.exchanges if one.request.resource and one.request.resource not in _FOR_ALL]
    granted = account.rights
    assert {used(one.request, granted) for one in asked if one.status != 403} == granted
    assert {one.request.path for one in asked if one.status == 403} <= _REFUSED_WITHOUT_HARM


def test_whatever_is_taken_away_is_named_and_nothing_is_written(sync: Sync, account: Account) -> None:
    sync.begin()
    before = sync.contents()
    for case in _cases(account.rights):
        account.take_away(*case.rights)
        account.api.apply(_FREE_LEASE)
        if not case.leased:
            account.api.call("DELETE", _LEASE)
        shown = sync.run(code=case.code)
        assert [said for said in case.said if said not in shown] == [], shown
        assert sync.contents() == before
        account.give_back()
    sync.run()
    assert {identity.name for identity in sync.contents()} == {"policy-kept", "policy-new", _SPARES_US}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Rights that are taken away, the exit code that this gives, and all that is said; `leased`: with a Lease there."""

    rights: set[Right]
    code: ExitCode
    said: list[str]
    leased: bool = True


def _cases(granted: set[Right]) -> Iterator[Case]:
    """Each verb on all kinds together, for every kind is named by itself; and each right on journal and lock."""
    for verb in ("create", "delete", "get", "patch"):
        rights = {right for right in granted if right.verb == verb and right.group in _GROUPS}
        yield Case(rights=rights, code=_DENIED, said=[_LACKS, *(f"\\n  {right}" for right in rights)])
    rights = {right for right in granted if right.verb == "list" and right.group in _GROUPS}
    unlisted = [f"{identity_of(body)}: this account may not list it" for body in (*named("kept"), *named("new"))]
    yield Case(rights=rights, code=ExitCode.KIND_UNAVAILABLE, said=unlisted)
    for right in granted:
        if right.resource == "configmaps":
            said = _said_by_the_server(right) if right.verb in ("create", "list") else f"\\n  {right} in namespace"
            yield Case(rights={right}, code=_DENIED, said=[said])
        if right.resource == "leases":
            said = "This account may not use the Lease that keeps two runs apart."
            leased = right != _MAKE_LEASE
            yield Case(rights={right}, code=_DENIED, said=[said, _said_by_the_server(right)], leased=leased)
    # Whoever makes the Lease holds it, but could not keep it.
    renew = replace(_MAKE_LEASE, verb="update", names=lock.LEASE)
    yield Case(rights={renew}, code=_DENIED, said=[_LACKS, f"\\n  {renew} in namespace"], leased=False)


def _said_by_the_server(right: Right) -> str:
    return f'cannot {right.verb} resource \\"{right.resource}\\"'


def test_what_may_not_be_listed_is_not_pruned(sync: Sync, account: Account) -> None:
    sync.begin()
    hidden = next(kind for kind in KINDS if kind.name == "DeletingPolicy")
    account.take_away(Right(group=hidden.group, resource=hidden.plural, verb="list"))
    sync.insights.publish(CLUSTER, answer(*(body for body in named("kept") if identity_of(body).kind != hidden)))
    assert hidden.resource in sync.run()
    assert {identity.kind for identity in sync.contents() if identity.name == "policy-gone"} == {hidden}


def test_without_its_labels_a_policy_that_spares_our_namespace_is_refused(sync: Sync, account: Account) -> None:
    sync.insights.publish(CLUSTER, answer(spares_us()))
    account.take_away(Right(group="", resource="namespaces", verb="get", names=AGENT_NAMESPACE))
    assert f"ValidatingPolicy/{_SPARES_US}" in sync.run(code=ExitCode.BLOCKS_ITSELF)
    account.give_back()
    sync.run()


def test_without_the_clusters_uid_a_journal_is_left_alone_once_its_lease_is_gone(
    sync: Sync, account: Account, cluster: ControlPlane
) -> None:
    sync.insights.publish(CLUSTER, answer(*named("new")[:3]))
    with Proxy(cluster) as proxy:
        proxy.plan(refuse(400), at=2, matching=not_to("leases", "configmaps"), times=None)
        sync.through(proxy, account).run(code=ExitCode.ROLLBACK_INCOMPLETE, ON_FAILURE="stop")
    account.take_away(Right(group="", resource="namespaces", verb="get", names="kube-system"))
    account.api.call("DELETE", _LEASE)
    assert "can't be used: it is of another cluster" in sync.run()


@pytest.fixture
def runners(runner: RunnerProgram) -> Iterator[Account]:
    with rendered(runner.bed.plane, "runner", "on-demand-job-runner") as made:
        yield made


def test_the_runner_uses_every_right_that_it_has(
    runner: RunnerProgram, runners: Account, insights: InsightsStandIn
) -> None:
    names = {insights.enqueue_job(name): name for name in ("trivy", "kyverno-policy-sync")}
    for name in names.values():
        runner.bed.apply(cron_job(name, pod=HELD))
    with Proxy(runner.bed.plane) as proxy:
        proxy.plan(reset_before, matching=lambda one: "watch" in one.query, times=None)  # it would outlast the test
        kubeconfig = proxy.write_kubeconfig(runner.programs.directory / "proxy", token=runners.token)
        with runner.with_(KUBECONFIG=str(kubeconfig)).start() as running:
            jobs = {name: f"{name}-on-demand-{job_id}" for job_id, name in names.items()}
            until(lambda: runner.bed.jobs().keys() >= set(jobs.values()), "both Jobs are there")
            # Two that run are listed, and looked at one by one when one is left.
            until(lambda: proxy.count(_reads("/jobs")), "they are listed")
            runner.bed.set_pod_status(jobs["trivy"], {"phase": "Succeeded"})
            until(lambda: insights.job_statuses[next(iter(names))][-1:] == ["completed"], "one is done")
            until(lambda: proxy.count(_reads(f"/jobs/{jobs['kyverno-policy-sync']}")), "the other is looked at")
            # Its pod goes, too, so that only the events say why it failed.
            runner.bed.patch(f"jobs/{jobs['kyverno-policy-sync']}", {"spec": {"activeDeadlineSeconds": 1}})
            until(lambda: all(told[-1:] != ["running"] for told in insights.job_statuses.values()), "both are over")
            assert running.terminate() == 0
        asked = [one for one in proxy.exchanges if one.request.resource and one.request.resource not in _FOR_ALL]
    assert {used(one.request, runners.rights) for one in asked} == runners.rights
    assert 403 not in {one.status for one in asked}


def _reads(end: str) -> Predicate:
    """Whether a request reads what has such a path."""
    return lambda one: one.method == "GET" and one.path.endswith(end) and "watch" not in one.query


_RUNNERS: Final = sorted({right for body in documents("runner") if "rules" in body for right in rights_of(body)})
#: Without these it works on, says less, or hears of an end later.
_SPARED: Final = {("list", "jobs"), ("watch", "jobs"), ("list", "pods"), ("list", "events"), ("create", "events")}
#: Without these a job can't be made, and Insights is told why.
_NEEDED_FOR_A_JOB: Final = {("get", "cronjobs"), ("create", "jobs")}


@pytest.mark.parametrize("right", _RUNNERS, ids=str)
def test_what_is_taken_away_from_the_runner_is_named_and_no_job_is_lost(
    right: Right, runner: RunnerProgram, runners: Account, insights: InsightsStandIn
) -> None:
    runners.take_away(right)
    runner.bed.apply(cron_job("trivy", pod=HELD))
    job_id = insights.enqueue_job("trivy")
    account = runner.with_(KUBECONFIG=str(runners.kubeconfig(runner.programs.directory / "runners")))
    said = f'cannot {right.verb} resource "{right.resource}" in API group "{right.group}" in the namespace'
    with account.start() as running:
        if (right.verb, right.resource) in _SPARED:
            _complete(runner, insights, job_id)
            assert running.terminate() == 0
            return
        if (right.verb, right.resource) in _NEEDED_FOR_A_JOB:
            why = running.wait_for("Job failed", id=job_id)["why"]
            assert said in why
            assert why.endswith("Grant the account that right.")
            until(lambda: insights.job_statuses[job_id] == ["failed"], "Insights is told")
            assert running.terminate() == 0
            return
        assert running.process.wait(60) == ExitCode.NOT_PERMITTED
        assert said in running.path.read_text()
        assert "\nGrant " in running.path.read_text()
    runners.give_back()
    with account.start() as running:
        _complete(runner, insights, job_id)
        assert running.terminate() == 0
    assert list(runner.bed.jobs()) == [f"trivy-on-demand-{job_id}"]


def _complete(runner: RunnerProgram, insights: InsightsStandIn, job_id: int) -> None:
    """Let its pod succeed, and wait until Insights hears of it."""
    runner.bed.set_pod_status(f"trivy-on-demand-{job_id}", {"phase": "Succeeded"})
    until(lambda: insights.job_statuses[job_id][-1:] == ["completed"], "it is completed")
