"""No token is in anything that a run leaves or shows, however it ends, nor with the programs that it starts."""

from __future__ import annotations

import base64
import json
import os
import signal
import stat
import subprocess
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from applier.report.formats import FORMATS
from ci.testbed.controlplane import ControlPlane
from renderer.errors import ExitCode
from renderer.manifest.kinds import KINDS
from tests.support.cluster import AGENT_NAMESPACE, with_plugin
from tests.support.insights import Fault, InsightsStandIn
from tests.support.jobs import RunnerProgram
from tests.support.policies import answer, cluster_policy
from tests.support.programs import CLUSTER, TOKEN, Programs
from tests.support.proxy import Proxy, call, refuse, to
from tests.support.repositories import git
from tests.support.secrets import Hunt
from tests.support.workflow import render, until

#: What the API keeps of our runs.
_KEPT: Final = (
    "/api/v1/configmaps",
    "/apis/coordination.k8s.io/v1/leases",
    "/apis/events.k8s.io/v1/events",
)
_POLICIES: Final = (cluster_policy("one"), cluster_policy("two"), cluster_policy("three"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The programs through a proxy, with a token for Insights and one for the cluster, and the search for both."""

    programs: Programs
    insights: InsightsStandIn
    plane: ControlPlane
    proxy: Proxy
    hunt: Hunt
    ours: tuple[Path, ...]

    def run(self, *command: str) -> int:
        """Run it to its end, look at what it printed, and give its code."""
        done = subprocess.run(
            self.programs._command(command),
            env=self.programs.environment,
            cwd=self.programs.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
        )
        self.hunt.look(f"what {' '.join(command)} printed", done.stdout)
        self.hunt.look(f"what {' '.join(command)} logged", done.stderr)
        return done.returncode

    def look_everywhere(self) -> None:
        """Look at the files, at the cluster, and at all that Insights and the cluster were sent but for the login."""
        self.hunt.look_into(self.programs.directory, but=self.ours)
        for path in (*_KEPT, *(f"/apis/{kind.group}" for kind in KINDS)):
            self.hunt.look(path, json.dumps(self.plane.api.call("GET", path)))
        for told in self.insights.requests:
            self._look_at(told.method, told.path, told.query, told.headers, told.body)
        for asked in self.proxy.requests(lambda _: True):
            self._look_at(asked.method, asked.path, asked.query, asked.headers, asked.body)

    def _look_at(
        self, method: str, path: str, query: Mapping[str, list[str]], headers: Mapping[str, str], body: bytes
    ) -> None:
        shown = {name: value for name, value in headers.items() if name.lower() != "authorization"}
        self.hunt.look(f"{method} {path}", json.dumps([path, dict(query), shown]))
        self.hunt.look(f"{method} {path}", body)


@pytest.fixture
def scene(programs: Programs, insights: InsightsStandIn, cluster: ControlPlane, tmp_path: Path) -> Iterator[Scene]:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with Proxy(cluster) as proxy:
        kubeconfig = proxy.write_kubeconfig(tmp_path / "kubeconfig", token=cluster.tokens["admin"])
        yield Scene(
            programs=programs.with_(
                KUBECONFIG=str(kubeconfig),
                TMPDIR=str(temporary),
                LOG_LEVEL="debug",
                INSIGHTS_METRICS_FILE=str(tmp_path / "run.prom"),
                INSIGHTS_LEASE_DURATION="9s",
                INSIGHTS_GRACE="1s",
            ),
            insights=insights,
            plane=cluster,
            proxy=proxy,
            hunt=Hunt([TOKEN, cluster.tokens["admin"]]),
            ours=(kubeconfig,),
        )


@pytest.mark.cluster
def test_a_run_that_goes_well_leaves_no_token(scene: Scene) -> None:
    snapshot = render(scene.programs, scene.insights, *_POLICIES)
    reports = [text for name in FORMATS for text in ("--report", f"{name}=plan.{name}")]
    assert scene.run("insights-applier", "plan", snapshot, "--out", "saved.json", *reports) == ExitCode.CHANGES
    assert scene.run("insights-applier", "apply", snapshot, "--plan", "saved.json") == 0
    scene.insights.publish(CLUSTER, answer(cluster_policy("one", message="Other."), *_POLICIES[1:]))
    assert scene.run("insights-applier", "sync") == 0
    assert scene.run("insights-applier", "history") == 0
    assert scene.run("insights-applier", "recover", "--show") == 0
    scene.look_everywhere()
    # The search saw the reports, what ConfigMaps keep compressed, and what Insights was told.
    assert {f"plan.{name}" for name in FORMATS} <= {Path(place).name for place in scene.hunt.places}
    assert any(
        place == _KEPT[0] and b"Other." in layer for place, layers in scene.hunt.places.items() for layer in layers[1:]
    )
    assert scene.hunt.seen("lastAppliedAt")
    assert scene.hunt.seen("insights_applier_runs_total")


@pytest.mark.cluster
@pytest.mark.parametrize("fault", [Fault.UNAUTHORIZED, Fault.HTML_PAGE])
def test_a_server_that_says_the_token_is_not_repeated(scene: Scene, fault: Fault) -> None:
    scene.insights.fail(fault, body=f"<html>{TOKEN}" if fault is Fault.HTML_PAGE else f"no {TOKEN}, no.")
    assert scene.run("insights-applier", "sync") in (ExitCode.NOT_PERMITTED, ExitCode.UNAVAILABLE)
    scene.look_everywhere()


@pytest.mark.cluster
def test_a_redirect_that_says_the_token_does_not_spread_it(scene: Scene) -> None:
    scene.insights.fail(Fault.REDIRECT, location=f"https://elsewhere.example/?token={TOKEN}")
    assert scene.run("insights-applier", "sync") == ExitCode.UNAVAILABLE
    scene.look_everywhere()


@pytest.mark.cluster
@pytest.mark.parametrize("code", [403, 422])
def test_a_cluster_that_refuses_leaves_no_token(scene: Scene, code: int) -> None:
    scene.insights.publish(CLUSTER, answer(*_POLICIES))
    # The second write: one has to be taken back.
    refusal = refuse(code, message=f"Bearer {scene.plane.tokens['admin']} may not")
    scene.proxy.plan(refusal, matching=to("clusterpolicies"), at=2)
    assert scene.run("insights-applier", "sync", "--no-validate-policies") == ExitCode.ROLLED_BACK
    scene.look_everywhere()


@pytest.mark.cluster
def test_a_run_that_is_killed_leaves_no_token_in_its_journal(scene: Scene) -> None:
    scene.insights.publish(CLUSTER, answer(*_POLICIES))
    started = threading.Event()
    running: list[subprocess.Popen[str]] = []

    def kill(_: object) -> None:
        assert started.wait(60)
        os.kill(running[0].pid, signal.SIGKILL)

    scene.proxy.plan(call(kill, when="after"), matching=to("clusterpolicies"), at=2)
    running.append(scene.programs.start("insights-applier", "sync", "--no-validate-policies", "--concurrency", "1"))
    started.set()
    for text in running[0].communicate(timeout=120):
        scene.hunt.look("what the killed run printed", text)
    assert running[0].returncode == -signal.SIGKILL
    scene.proxy.wait_until_left()
    scene.look_everywhere()
    head, *_ = [
        item
        for item in scene.plane.api.call("GET", f"/api/v1/namespaces/{AGENT_NAMESPACE}/configmaps")["items"]
        if "journal" in item["metadata"]["name"]
    ]
    assert head
    assert scene.hunt.seen('"three"')
    assert scene.run("insights-applier", "recover") == 0
    scene.look_everywhere()


@pytest.mark.tool
def test_the_programs_that_are_started_get_no_token_and_no_core_can_be_written(
    offline: Programs, insights: InsightsStandIn
) -> None:
    """Wrappers of git and of the kyverno CLI note what they were given; the limit is read of a run at work."""
    wrappers, noted = offline.directory / "wrappers", offline.directory / "noted"
    wrappers.mkdir()
    noted.mkdir()
    path = offline.environment["PATH"]
    for name in ("git", "kyverno"):
        wrapper = wrappers / name
        wrapper.write_text(
            f'#!/bin/sh\ncat /proc/$$/environ /proc/$$/cmdline /proc/$$/limits >"{noted}/{name}.$$"\n'
            f'PATH="{path}" exec {name} "$@"\n'
        )
        wrapper.chmod(0o755)
    seen = offline.with_(PATH=f"{wrappers}{os.pathsep}{path}")
    repository = offline.directory / "repository"
    git(offline.directory, "init", "-q", "-b", "main", str(repository))
    git(repository, "config", "user.name", "A")
    git(repository, "config", "user.email", "a@example.org")
    insights.publish(CLUSTER, answer(*_POLICIES))
    done = seen.run("insights-renderer", "render", "--out", "repository/policies", "--git")
    assert done.returncode == 0, done.stderr
    done = seen.run("insights-applier", "validate", "repository/policies", "--offline", "--allow-unchecked")
    assert done.returncode == 0, done.stdout + done.stderr
    notes = {file.name.partition(".")[0]: file.read_bytes() for file in noted.iterdir()}
    assert notes.keys() == {"git", "kyverno"}
    hunt = Hunt([TOKEN])
    hunt.look_into(noted)
    for note in notes.values():
        assert b"Max core file size        0                    0 " in note

    insights.fail(Fault.STALL)
    asked = len(insights.requests)
    running = seen.start("insights-applier", "sync")
    try:
        until(lambda: len(insights.requests) > asked)
        for name in ("cmdline", "limits"):
            text = Path(f"/proc/{running.pid}/{name}").read_bytes()
            hunt.look(name, text)
            assert name == "cmdline" or b"Max core file size        0                    0 " in text
    finally:
        running.kill()
        running.communicate()


@pytest.mark.jobs
def test_a_credential_plugin_of_the_runner_gets_no_token(runner: RunnerProgram) -> None:
    plane, place = runner.bed.plane, runner.programs.directory
    config, given = with_plugin(place, plane.directory.kubeconfig_of("worker"), plane.tokens["worker"])
    with runner.with_(KUBECONFIG=str(config)).start() as running:
        running.wait_for("This runner works now")
        assert running.terminate() == 0
    assert "KUBERNETES_EXEC_INFO=" in given.read_text()
    assert TOKEN not in given.read_text()


def test_what_is_written_for_oneself_is_private(offline: Programs, insights: InsightsStandIn) -> None:
    snapshot = render(offline, insights, *_POLICIES)
    command = ("insights-applier", "plan", snapshot, "--against", "empty", "--report", "html=page.html")
    (offline.directory / "empty").mkdir()
    render_nothing = offline.run(
        "insights-renderer", "render", "--from", "/dev/null", "--allow-empty", "--out", "empty"
    )
    assert render_nothing.returncode == 0, render_nothing.stderr
    done = offline.run(*command)
    assert done.returncode == ExitCode.CHANGES, done.stderr
    caches = list((offline.directory / ".cache").rglob("*"))
    for path in (offline.directory / "page.html", *caches):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or path.is_dir(), path


@pytest.mark.parametrize(
    "hidden",
    [
        TOKEN.encode(),
        b'{"a":"' + base64.b64encode(b"x" + TOKEN.encode() + b"y" * 9) + b'"}',
        b'{"a":"' + base64.b64encode(zlib.compress(b"x" * 40 + TOKEN.encode())) + b'"}',
        b"xx" + base64.b64encode(b"yy" + TOKEN.encode()),
        TOKEN.encode().hex().encode(),
    ],
)
def test_the_search_finds_what_is_there(tmp_path: Path, hidden: bytes) -> None:
    (tmp_path / "file").write_bytes(hidden)
    with pytest.raises(AssertionError, match=r"a secret is in .*/file"):
        Hunt([TOKEN]).look_into(tmp_path)
