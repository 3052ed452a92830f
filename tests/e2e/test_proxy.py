"""The tests' proxy between a client and a real API server does what it is told, and nothing else."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
import requests

from applier.cluster.connection import Connection
from applier.cluster.policies import KubernetesCluster
from applier.ports import ServerRefused
from ci.testbed.controlplane import ControlPlane
from renderer.errors import NotPermitted, RemoteError
from renderer.manifest.jsontypes import JsonObject
from tests.support import proxy as proxies
from tests.support.cluster import AGENT_NAMESPACE
from tests.support.policies import cluster_policy, identity_of
from tests.support.proxy import Behaviour, Exchange, Proxy, Request, call, is_write, not_to, refuse, to
from tests.support.tools import TOOLCHAIN

pytestmark = pytest.mark.cluster

CONFIGMAPS = f"/api/v1/namespaces/{AGENT_NAMESPACE}/configmaps"


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as one:
        one.trust_env = False
        yield one


def config_map(name: str) -> JsonObject:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}


def names(plane: ControlPlane) -> set[str]:
    found = plane.api.call("GET", CONFIGMAPS)["items"]
    return {item["metadata"]["name"] for item in found} - {"kube-root-ca.crt"}


def make(session: requests.Session, proxy: Proxy, name: str) -> int:
    return session.post(f"{proxy.url}{CONFIGMAPS}", json=config_map(name), timeout=5).status_code


def request(method: str, target: str, body: bytes = b"") -> Request:
    path, _, query = target.partition("?")
    parsed = {name: [value] for name, _, value in (part.partition("=") for part in query.split("&")) if name}
    return Request(method=method, path=path, query=parsed, headers={}, body=body)


@pytest.mark.parametrize(
    ("asked", "writes"),
    [
        (request("GET", CONFIGMAPS), False),
        (request("POST", CONFIGMAPS, b"{}"), True),
        (request("POST", f"{CONFIGMAPS}?dryRun=All", b"{}"), False),
        (request("DELETE", f"{CONFIGMAPS}/a?dryRun=All"), False),
        (request("DELETE", f"{CONFIGMAPS}/a?dryRun=All", b"{}"), True),
        (request("DELETE", f"{CONFIGMAPS}/a", b'{"dryRun": ["All"]}'), False),
        (request("DELETE", f"{CONFIGMAPS}/a", b'{"dryRun": []}'), True),
        (request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", b"{}"), False),
        (request("POST", "/apis/authorization.k8s.io/v1/namespaces/a/localsubjectaccessreviews", b"{}"), False),
        (request("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", b"{}"), True),
    ],
)
def test_a_write_is_what_may_change_something(asked: Request, writes: bool) -> None:
    assert is_write(asked) is writes


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("/apis/kyverno.io/v1/clusterpolicies/one", "clusterpolicies"),
        ("/apis/kyverno.io/v1/namespaces/a/policies", "policies"),
        (f"{CONFIGMAPS}/a", "configmaps"),
        ("/api/v1/namespaces", "namespaces"),
        ("/api/v1/namespaces/a", "namespaces"),
        ("/apis", ""),
        ("/openapi/v3", ""),
    ],
)
def test_a_request_is_to_a_resource(path: str, resource: str) -> None:
    assert request("POST", path).resource == resource
    assert to(resource)(request("POST", path))
    assert not not_to(resource)(request("POST", path))


def test_the_applier_works_through_it_and_all_is_recorded(proxy: Proxy, cluster: ControlPlane, tmp_path: Path) -> None:
    config = proxy.write_kubeconfig(tmp_path / "kubeconfig", token=cluster.admin_token)
    adapter = KubernetesCluster(Connection.open(kubeconfig=str(config)))
    body = cluster_policy("one")
    identity = identity_of(body)
    adapter.create(body, identity, dry_run=True)
    stored = adapter.create(body, identity)
    adapter.delete(identity, uid=stored["metadata"]["uid"], dry_run=True)
    assert adapter.read(identity) == stored
    adapter.delete(identity, uid=stored["metadata"]["uid"])
    assert [(written.method, written.resource) for written in proxy.requests()] == [
        ("POST", "clusterpolicies"),
        ("DELETE", "clusterpolicies"),
    ]
    assert proxy.requests()[0].json["metadata"] == body["metadata"]
    posts = [exchange for exchange in proxy.exchanges if exchange.request.method == "POST"]
    assert [exchange.status for exchange in posts] == [HTTPStatus.CREATED] * 2
    assert posts[0].request.digest == posts[1].request.digest


def test_the_accounts_own_rights_count(proxy: Proxy, cluster: ControlPlane, tmp_path: Path) -> None:
    body = cluster_policy("one")
    config = proxy.write_kubeconfig(tmp_path / "kubeconfig", token=cluster.tokens["viewer"])
    with pytest.raises(NotPermitted, match='User "viewer"'):
        KubernetesCluster(Connection.open(kubeconfig=str(config))).create(body, identity_of(body))


def test_kubectl_works_through_it(proxy: Proxy, tmp_path: Path) -> None:
    config = proxy.write_kubeconfig(tmp_path / "kubeconfig")
    done = subprocess.run(
        [TOOLCHAIN / "bin" / "kubectl", "auth", "whoami", "--output=jsonpath={.status.userInfo.username}"],
        env={"KUBECONFIG": str(config), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "admin"


@pytest.mark.parametrize("code", [400, 403, 409, 422, 429, 500, 503])
def test_it_refuses_the_request_that_it_is_told_to(
    proxy: Proxy, cluster: ControlPlane, session: requests.Session, code: int
) -> None:
    proxy.plan(refuse(code, retry_after=7), at=2)
    assert [make(session, proxy, name) for name in "abc"] == [201, code, 201]
    assert names(cluster) == {"a", "c"}
    assert [len(exchange.answers) for exchange in proxy.exchanges] == [1, 0, 1]


def test_the_applier_reads_its_refusals_as_the_servers(proxy: Proxy, cluster: ControlPlane, tmp_path: Path) -> None:
    config = proxy.write_kubeconfig(tmp_path / "kubeconfig", token=cluster.admin_token)
    adapter = KubernetesCluster(Connection.open(kubeconfig=str(config)))
    body = cluster_policy("one")
    proxy.plan(refuse(422, message="spec.rules is broken"))
    with pytest.raises(ServerRefused, match=r"spec.rules is broken \(422 Invalid\)"):
        adapter.create(body, identity_of(body))
    proxy.plan(refuse(429, retry_after=1))
    with pytest.raises(RemoteError, match="429") as refused:
        adapter.create(body, identity_of(body))
    assert vars(refused.value)["retry_after_seconds"] == 1


def test_several_in_a_row_and_those_of_one_resource(
    proxy: Proxy, cluster: ControlPlane, session: requests.Session
) -> None:
    proxy.plan(refuse(503), at=2, times=2)
    proxy.plan(refuse(409), matching=to("leases"), times=None)
    proxy.plan(refuse(403), at=5, times=None)
    assert [make(session, proxy, name) for name in "abcdefg"] == [201, 503, 503, 201, 403, 403, 403]
    assert proxy.count(to("configmaps")) == 7
    proxy.clear()
    assert make(session, proxy, "h") == 201
    assert names(cluster) == {"a", "d", "h"}


@pytest.mark.parametrize(
    ("behaviour", "error", "made"),
    [
        (proxies.reset_before, requests.ConnectionError, False),
        (proxies.reset_after, requests.ConnectionError, True),
        (proxies.stall_before, requests.Timeout, False),
        (proxies.stall_after, requests.Timeout, True),
        (proxies.truncate, requests.exceptions.ChunkedEncodingError, True),
    ],
)
def test_it_breaks_off_before_or_after_the_server_acted(
    proxy: Proxy,
    cluster: ControlPlane,
    session: requests.Session,
    behaviour: Behaviour,
    error: type[Exception],
    made: bool,
) -> None:
    proxy.plan(behaviour)
    with pytest.raises(error):
        # Only a stall is waited out; what breaks off may come late.
        session.post(f"{proxy.url}{CONFIGMAPS}", json=config_map("a"), timeout=5 if error is requests.Timeout else 60)
    assert names(cluster) == ({"a"} if made else set())
    assert make(session, proxy, "b") == 201


def test_a_reset_is_a_reset(proxy: Proxy, session: requests.Session) -> None:
    proxy.plan(proxies.reset_before)
    with pytest.raises(requests.ConnectionError, match="Connection reset by peer"):
        make(session, proxy, "a")


def test_it_sends_one_twice(proxy: Proxy, cluster: ControlPlane, session: requests.Session) -> None:
    proxy.plan(proxies.duplicate)
    assert make(session, proxy, "a") == 409
    assert [answer.status for answer in proxy.exchanges[0].answers] == [201, 409]
    assert names(cluster) == {"a"}


def test_it_calls_before_instead_of_or_after(proxy: Proxy, cluster: ControlPlane, session: requests.Session) -> None:
    seen: list[set[str]] = []

    def look(_: Request) -> None:
        seen.append(names(cluster))

    proxy.plan(call(look, when="before"), at=1)
    proxy.plan(call(look, when="after"), at=2)
    proxy.plan(call(look, when="instead"), at=3)
    assert [make(session, proxy, name) for name in "ab"] == [201, 201]
    with pytest.raises(requests.ConnectionError):
        make(session, proxy, "c")
    assert seen == [set(), {"a", "b"}, {"a", "b"}]
    assert names(cluster) == {"a", "b"}


def test_what_a_killed_client_has_sent_is_waited_for(proxy: Proxy, cluster: ControlPlane, tmp_path: Path) -> None:
    manifest = tmp_path / "map.json"
    manifest.write_text('{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}')
    config = proxy.write_kubeconfig(tmp_path / "kubeconfig")
    clients: list[subprocess.Popen[bytes]] = []
    proxy.plan(call(lambda _: clients[0].kill(), when="before"))
    command = [str(TOOLCHAIN / "bin" / "kubectl"), "create", "-f", str(manifest), f"--namespace={AGENT_NAMESPACE}"]
    with subprocess.Popen(command, env={"KUBECONFIG": str(config), "HOME": str(tmp_path)}) as client:
        clients.append(client)
        client.wait()
        proxy.wait_until_left()
    assert client.returncode == -9
    assert names(cluster) == {"a"}


def test_a_behaviour_that_fails_fails_the_test(cluster: ControlPlane, session: requests.Session) -> None:
    def broken(_: Exchange) -> None:
        raise AssertionError("wrong")

    proxy = Proxy(cluster)
    proxy.plan(broken)
    with pytest.raises(AssertionError, match="wrong"), proxy, pytest.raises(requests.ConnectionError):
        make(session, proxy, "a")
