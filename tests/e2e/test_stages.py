"""The pipeline stages: their very steps, against a remote that wants a login, a forge's API, Insights and a cluster."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from applier.cluster.policies import KubernetesCluster
from ci.testbed.controlplane import ControlPlane
from renderer.errors import ExitCode
from renderer.manifest.jsontypes import JsonObject
from tests.support.forges import PROJECT, REPOSITORY, Artifact, ForgeStandIn, Request
from tests.support.git_http import SECRET, GitServer
from tests.support.insights import InsightsStandIn
from tests.support.pipelines import OUT, STAGES, Ended, GitHub, GitLab, Pipeline, Shell, World
from tests.support.policies import answer, cluster_policy, validating_policy
from tests.support.programs import CLUSTER, Programs
from tests.support.proxy import Proxy, call, to
from tests.support.repositories import bare, begin, git, hook
from tests.support.workflow import by_hand, contents, until

ONE, TWO = cluster_policy("one"), validating_policy("two")
BRANCH = f"insights/{OUT}"
FORGES = ["github", "gitlab", "shell"]


@pytest.fixture
def world(programs: Programs, forge: ForgeStandIn, server: GitServer, tmp_path: Path) -> World:
    """A remote with a first commit, and programs without the kyverno CLI, which has no part in this."""
    bare(tmp_path / "remote.git", begin(tmp_path / "work"))
    return World(programs=programs.with_(VALIDATE_POLICIES="false"), forge=forge, server=server, place=tmp_path)


@pytest.fixture(params=FORGES)
def pipeline(request: pytest.FixtureRequest, world: World) -> Pipeline:
    """The stages on each CI."""
    return _on(request.param, world)


def _on(name: str, world: World) -> Shell | GitHub | GitLab:
    if name == "shell":
        return Shell(world=world, kept=world.place / "kept")
    return GitHub(world=world) if name == "github" else GitLab(world=world)


def done(ended: Ended, code: int = 0) -> str:
    """What it printed, when it ended as it should."""
    assert ended.code == code, ended.shown
    return ended.shown


def tip(world: World, branch: str) -> str:
    """Where the remote has the branch; "" where it has none."""
    return git(world.remote, "for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")


def proposed(world: World) -> Request:
    """The request that render opened; where nobody can open one, somebody does it by hand."""
    if not world.forge.requests:
        world.forge.requests.append(Request(number=1, branch=BRANCH, base="main", title="", body=""))
    (request,) = world.forge.requests
    request.head = tip(world, BRANCH)
    return request


def merge(world: World, request: Request) -> str:
    """Merge it as forges do, and give the commit."""
    tree = world.place / "work"
    git(tree, "fetch", "-q")
    git(tree, "merge", "-q", "--no-ff", "-m", "Merge", f"origin/{request.branch}")
    git(tree, "push", "-q", "origin", "main", f":{request.branch}")
    request.merged_as = git(tree, "rev-parse", "HEAD")
    return request.merged_as


def exists(cluster: ControlPlane, body: JsonObject) -> bool:
    return cluster.api.ask("GET", cluster.api.path_of(body)).status_code == 200


@pytest.mark.cluster
def test_from_insights_to_the_cluster_by_way_of_a_review(
    pipeline: Pipeline, world: World, insights: InsightsStandIn, cluster: ControlPlane
) -> None:
    asks = not isinstance(pipeline, Shell)
    insights.publish(CLUSTER, answer(ONE))
    done(pipeline.render())
    first = tip(world, BRANCH)
    assert git(world.remote, "rev-list", "--count", f"main..{BRANCH}") == "1"
    assert len(world.forge.requests) == asks

    insights.publish(CLUSTER, answer(ONE, TWO))
    done(pipeline.render())
    second = tip(world, BRANCH)
    assert second != first
    assert git(world.remote, "rev-list", "--count", f"main..{BRANCH}") == "1", "one branch, refreshed in place"
    done(pipeline.render())
    assert tip(world, BRANCH) == second
    assert len(world.forge.requests) == asks
    if asks:
        assert world.forge.requests[0].base == "main"
        assert world.forge.requests[0].title == git(world.remote, "log", "-1", "--format=%s", BRANCH)
        assert "two" in world.forge.requests[0].body

    request = proposed(world)
    shown = done(pipeline.plan(request))
    assert "2 to create" in shown
    assert {"plan.json", "plan.html", "plan.sarif"} < world.forge.artifacts[-1].files.keys()
    for name in ("plan.json", "plan.sarif"):
        json.loads(world.forge.artifacts[-1].files[name])
    done(pipeline.plan(request))
    assert len(request.comments) == asks, "one comment, updated in place"
    assert all("2 to create" in comment["body"] for comment in request.comments)
    assert not exists(cluster, ONE)

    done(pipeline.apply(merge(world, request)))
    assert exists(cluster, ONE)
    assert exists(cluster, TWO)
    assert "Nothing to change" in done(pipeline.render())
    assert tip(world, BRANCH) == ""


@pytest.mark.cluster
def test_a_plan_that_is_stale_by_the_merge_is_refused(
    pipeline: Pipeline, world: World, insights: InsightsStandIn, cluster: ControlPlane
) -> None:
    insights.publish(CLUSTER, answer(ONE, TWO))
    done(pipeline.render())
    request = proposed(world)
    done(pipeline.plan(request))
    by_hand(cluster.api, ONE)
    shown = done(pipeline.apply(merge(world, request)), ExitCode.STALE_PLAN)
    assert "exists now" in shown
    assert not exists(cluster, TWO)


@pytest.mark.cluster
def test_a_refused_plan_is_told_to_those_who_review_and_fails(
    world: World, insights: InsightsStandIn, cluster: ControlPlane
) -> None:
    by_hand(cluster.api, ONE)
    insights.publish(CLUSTER, answer(ONE))
    pipeline = GitHub(world=world)
    done(pipeline.render())
    request = proposed(world)
    done(pipeline.plan(request), ExitCode.NOT_OWNED)
    (comment,) = request.comments
    assert "**Refused**" in comment["body"]
    assert (world.place / "summary.md").read_text() == comment["body"]
    assert "plan.html" in world.forge.artifacts[-1].files
    done(pipeline.apply(merge(world, request)), ExitCode.NOT_OWNED)


@pytest.mark.cluster
def test_nothing_to_plan_is_told_too_and_can_be_applied(world: World, insights: InsightsStandIn) -> None:
    insights.publish(CLUSTER, answer())
    pipeline = GitLab(world=world)
    done(pipeline.render())
    request = proposed(world)
    done(pipeline.plan(request))
    assert "No changes" in request.comments[0]["body"]
    done(pipeline.apply(merge(world, request)))


# --- impact ----------------------------------------------------------------------------------------


def _with_manifests(world: World) -> None:
    """Manifests of the people's own in the repository, one of which the policy blocks."""
    tree = world.place / "work"
    (tree / "manifests").mkdir()
    for name, labels in (("teamless", {}), ("of-a-team", {"team": "shop"})):
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        (tree / "manifests" / f"{name}.yaml").write_text(json.dumps(body))
    git(tree, "add", "manifests")
    git(tree, "commit", "-q", "-m", "Manifests")
    git(tree, "push", "-q")


@pytest.mark.cluster
@pytest.mark.tool
@pytest.mark.parametrize("name", FORGES)
def test_the_impact_is_on_the_pull_request(
    world: World, insights: InsightsStandIn, cluster: ControlPlane, name: str
) -> None:
    pipeline = replace(_on(name, world), impact="manifests")
    _with_manifests(world)
    denies = cluster_policy("one")
    denies["spec"]["validationFailureAction"] = "Enforce"
    insights.publish(CLUSTER, answer(denies))
    done(pipeline.render())
    request = proposed(world)
    shown = done(pipeline.plan(request))
    assert "Impact on manifests: 1 newly blocked, 0 newly reported, 0 newly let through" in shown
    for comment in request.comments:
        assert "| – | Namespace/teamless | ClusterPolicy/one rule team |" in comment["body"]
        assert "of-a-team" not in comment["body"]
    assert len(request.comments) == (name != "shell")
    files = world.forge.artifacts[-1].files
    assert json.loads(files["plan.json"])["impact"]["summary"]["blocked"] == 1
    assert b"newly-blocked" in files["plan.sarif"]
    # A saved plan with an impact approves as one without it does.
    done(pipeline.apply(merge(world, request)))
    assert exists(cluster, denies)


@pytest.mark.cluster
@pytest.mark.tool
def test_what_runs_in_the_cluster_may_be_looked_at_and_a_directory_that_is_not_there_fails(
    world: World, insights: InsightsStandIn
) -> None:
    insights.publish(CLUSTER, answer(ONE))
    done(GitHub(world=world).render())
    request = proposed(world)
    assert "Impact on the cluster: 0 newly blocked" in done(GitHub(world=world, impact="cluster").plan(request))
    assert "#### Impact on the cluster" in request.comments[0]["body"]
    shown = done(GitHub(world=world, impact="nowhere").plan(request), ExitCode.INPUT)
    assert "nowhere does not exist" in shown


# --- render ----------------------------------------------------------------------------------------


@pytest.fixture
def rendering(offline: Programs, forge: ForgeStandIn, server: GitServer, tmp_path: Path) -> World:
    """The same with no cluster."""
    bare(tmp_path / "remote.git", begin(tmp_path / "work"))
    return World(programs=offline, forge=forge, server=server, place=tmp_path)


def test_what_is_not_wanted_any_more_is_not_proposed_any_more(rendering: World, insights: InsightsStandIn) -> None:
    pipeline = GitHub(world=rendering)
    insights.publish(CLUSTER, answer(ONE))
    done(pipeline.render())
    merge(rendering, proposed(rendering))
    insights.publish(CLUSTER, answer(ONE, TWO))
    done(pipeline.render())
    assert tip(rendering, BRANCH)
    insights.publish(CLUSTER, answer(ONE))
    before = tip(rendering, "main")
    done(pipeline.render())
    assert tip(rendering, BRANCH) == ""
    assert tip(rendering, "main") == before


def test_a_branch_is_refreshed_when_its_base_went_on_beneath_it(rendering: World, insights: InsightsStandIn) -> None:
    insights.publish(CLUSTER, answer(ONE))
    pipeline = GitHub(world=rendering)
    done(pipeline.render())
    old = tip(rendering, BRANCH)
    tree = rendering.place / "work"
    (tree / "notes").write_text("not of the snapshot\n")
    git(tree, "add", "notes")
    git(tree, "commit", "-q", "-m", "Note")
    git(tree, "push", "-q")
    done(pipeline.render())
    assert tip(rendering, BRANCH) == old, "what the snapshot is not made of refreshes nothing"
    (tree / OUT).mkdir(parents=True)
    (tree / OUT / "README").write_text("in the snapshot's directory\n")
    git(tree, "add", OUT)
    git(tree, "commit", "-q", "-m", "Explain")
    git(tree, "push", "-q")
    done(pipeline.render())
    assert git(rendering.remote, "merge-base", "main", BRANCH) == tip(rendering, "main")
    assert git(rendering.remote, "rev-list", "--count", f"main..{BRANCH}") == "1"


#: All that git allows in the name of a branch, and shells, URLs or options make something of.
_ODD: Final = "-odd/$(id)`id`'\"&x=1#%2e;|<>{é}!"


@pytest.mark.parametrize("name", ["github", "gitlab"])
def test_a_branch_may_have_any_name_that_git_allows(rendering: World, insights: InsightsStandIn, name: str) -> None:
    pipeline = (GitHub if name == "github" else GitLab)(world=rendering, branch=_ODD)
    for policies in ([ONE], [ONE, TWO]):
        insights.publish(CLUSTER, answer(*policies))
        done(pipeline.render())
        assert tip(rendering, _ODD)
    (request,) = rendering.forge.requests
    assert (request.branch, request.base) == (_ODD, "main")
    assert git(rendering.remote, "rev-list", "--count", f"main..refs/heads/{_ODD}") == "1"
    insights.publish(CLUSTER, answer())
    done(pipeline.render())


def test_what_others_push_meanwhile_is_not_overwritten(rendering: World, insights: InsightsStandIn) -> None:
    insights.publish(CLUSTER, answer(ONE))
    theirs = tip(rendering, "main")
    # Just before the push is taken, somebody else makes the branch.
    hook(rendering.remote, "pre-receive", f"unset GIT_QUARANTINE_PATH\ngit update-ref refs/heads/{BRANCH} {theirs}")
    done(GitHub(world=rendering).render(), ExitCode.UNAVAILABLE)
    assert tip(rendering, BRANCH) == theirs
    assert rendering.forge.requests == []


def test_a_render_that_fails_leaves_remote_and_forge_alone(rendering: World, insights: InsightsStandIn) -> None:
    insights.publish(CLUSTER, "kind: ClusterPolicy\n")
    done(GitLab(world=rendering).render(), ExitCode.INPUT)
    assert tip(rendering, BRANCH) == ""
    assert rendering.forge.written == []


# --- comment and reviewed plan ---------------------------------------------------------------------


def asked(world: World, name: str, *command: str, **variables: str) -> Ended:
    """Run insights-forge as that forge's runner would, on request 1."""
    event = world.place / "event.json"
    event.write_text(json.dumps({"pull_request": {"number": 1}}))
    api = f"http://127.0.0.1:{world.forge.port}"
    environment = {
        "github": {"GITHUB_ACTIONS": "true", "GITHUB_API_URL": api, "GITHUB_REPOSITORY": REPOSITORY}
        | {"GITHUB_EVENT_PATH": str(event), "GITHUB_SHA": MERGED},
        "gitlab": {"GITLAB_CI": "true", "CI_API_V4_URL": api, "CI_PROJECT_ID": PROJECT}
        | {"CI_MERGE_REQUEST_IID": "1", "CI_COMMIT_SHA": MERGED},
        "shell": {},
    }[name]
    words = " ".join(command)
    return world.run(
        f"{STAGES}/insights-forge {words}", world.place, {"FORGE_TOKEN": SECRET, **environment, **variables}
    )


HEAD, MERGED = "a" * 40, "b" * 40


@pytest.fixture
def reviewed(rendering: World) -> World:
    """A request that was merged, and the plan that it left."""
    request = Request(number=1, branch=BRANCH, base="main", title="", body="", head=HEAD, merged_as=MERGED)
    rendering.forge.requests.append(request)
    return rendering


def artifact(name: str, *, head: str = HEAD, fork: bool = False, text: bytes = b"{}") -> Artifact:
    kept = f"insights-plan-{head}" if name == "github" else "insights-plan"
    return Artifact(name=kept, head=head, files={"plan.json": text}, fork=fork)


@pytest.mark.parametrize("name", ["github", "gitlab"])
def test_only_our_own_comment_is_updated_however_many_there_are(reviewed: World, name: str) -> None:
    (request,) = reviewed.forge.requests
    marker = "<!-- insights-applier plan acme/prod -->"
    reviewed.forge.comment(request, f"{marker}\nforged", author="mallory")
    reviewed.forge.comment(request, "<!-- insights-applier plan acme/other -->\nof another cluster")
    for _ in range(150):
        reviewed.forge.comment(request, "chatter", author="robin")
    file = reviewed.place / "comment.md"
    for text in ("first", "second"):
        file.write_text(f"{marker}\n{text}")
        done(asked(reviewed, name, "comment", str(file)))
    assert [one["body"] for one in request.comments if "chatter" not in one["body"]] == [
        f"{marker}\nforged",
        "<!-- insights-applier plan acme/other -->\nof another cluster",
        f"{marker}\nsecond",
    ]


@pytest.mark.parametrize("name", ["github", "gitlab"])
def test_the_reviewed_plan_is_the_last_of_what_was_merged(reviewed: World, name: str) -> None:
    reviewed.forge.artifacts += [artifact(name, text=b"old"), artifact(name, head="c" * 40, text=b"of another")]
    reviewed.forge.artifacts.append(artifact(name, text=b"new"))
    done(asked(reviewed, name, "plan", "plan.json"))
    assert (reviewed.place / "plan.json").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["github", "gitlab"])
@pytest.mark.parametrize("case", ["pushed past review", "no plan", "of a fork"])
def test_what_was_not_reviewed_here_is_not_applied(reviewed: World, name: str, case: str) -> None:
    if case == "pushed past review":
        reviewed.forge.requests[0].merged_as = "d" * 40
    if case != "no plan":
        reviewed.forge.artifacts.append(artifact(name, fork=case == "of a fork"))
    shown = done(asked(reviewed, name, "plan", "plan.json"), ExitCode.INPUT)
    assert "nothing was applied" in shown
    assert not (reviewed.place / "plan.json").exists()


@pytest.mark.parametrize("name", ["github", "gitlab"])
def test_a_wrong_token_is_told_and_not_shown(reviewed: World, name: str) -> None:
    wrong = "ghp-of-somebody-else"
    ended = asked(reviewed, name, "plan", "plan.json", FORGE_TOKEN=wrong)
    assert "FORGE_TOKEN" in done(ended, ExitCode.NOT_PERMITTED)
    assert wrong not in ended.shown
    ended = asked(reviewed, name, "plan", "plan.json", FORGE_TOKEN=f"{wrong}\nX-Other: 1")
    assert wrong not in done(ended, ExitCode.CONFIGURATION)


def test_a_forge_that_is_not_there_or_not_encrypted(reviewed: World) -> None:
    for url, code in (("http://127.0.0.1:1", ExitCode.UNAVAILABLE), ("http://forge.example", ExitCode.CONFIGURATION)):
        shown = done(asked(reviewed, "github", "plan", "plan.json", GITHUB_API_URL=url), code)
        assert len(shown.splitlines()) == 1, shown


def test_elsewhere_there_is_no_comment_and_the_plan_has_to_be_named(reviewed: World) -> None:
    (reviewed.place / "comment.md").write_text("text")
    assert "no comment" in done(asked(reviewed, "shell", "comment", "comment.md"))
    assert "INSIGHTS_PLAN" in done(asked(reviewed, "shell", "plan", "plan.json"), ExitCode.CONFIGURATION)
    assert reviewed.forge.written == []


#: What takes its time, until it is told to end; it says how often it was told more while it undid what it had done.
_SLOW = f"""\
#!{sys.executable}
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
print("began", flush=True)
signal.sigwait([signal.SIGTERM])
print("told", flush=True)
open("go").read()
print("undone; told", len(signal.sigpending()), "times more")
sys.exit(143)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_job_that_is_cancelled_lets_the_apply_undo_what_it_did(rendering: World, number: signal.Signals) -> None:
    programs, temporary = rendering.place / "bin", rendering.place / "tmp"
    programs.mkdir()
    temporary.mkdir()
    (programs / "insights-applier").write_text(_SLOW)
    (programs / "insights-applier").chmod(0o755)
    os.mkfifo(rendering.place / "go")
    stage = subprocess.Popen(
        [STAGES / "insights-stage", "apply", OUT],
        env={"PATH": f"{programs}:{os.defpath}", "INSIGHTS_PLAN": "plan.json", "TMPDIR": str(temporary)},
        cwd=rendering.place,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert stage.stdout
    assert stage.stdout.readline() == "began\n"
    stage.send_signal(number)
    assert stage.stdout.readline() == "told\n"
    until(lambda: _is_deaf(stage.pid))
    for another in (signal.SIGINT, signal.SIGTERM):
        stage.send_signal(another)
    (rendering.place / "go").write_text("")
    assert stage.communicate(timeout=60)[0] == "undone; told 0 times more\n"
    assert stage.returncode == 143
    assert list(temporary.iterdir()) == []


def _is_deaf(pid: int) -> bool:
    """Whether the process ignores SIGTERM: it has handed the first on."""
    (ignored,) = re.findall(r"^SigIgn:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(ignored, 16) >> (signal.SIGTERM - 1) & 1)


def _stage(tree: Path) -> int:
    """The process of the stage that runs there."""
    (pid,) = (
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if _is_stage(process) and (process / "cwd").readlink() == tree
    )
    return pid


def _is_stage(process: Path) -> bool:
    with suppress(OSError):
        return b"/insights-stage" in (process / "cmdline").read_bytes()
    return False


@pytest.mark.cluster
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stage_that_is_ended_in_mid_apply_leaves_nothing_half_applied(
    world: World, insights: InsightsStandIn, cluster: ControlPlane, adapter: KubernetesCluster, proxy: Proxy,
    number: signal.Signals,
) -> None:  # fmt: skip
    kubeconfig = proxy.write_kubeconfig(world.place / "proxy.kubeconfig", token=cluster.admin_token)
    world = replace(world, programs=world.programs.with_(KUBECONFIG=str(kubeconfig)))
    pipeline = Shell(world=world, kept=world.place / "kept")
    insights.publish(CLUSTER, answer(*(cluster_policy(f"p{index:02}") for index in range(50))))
    done(pipeline.render())
    request = proposed(world)
    done(pipeline.plan(request))
    merged, before = merge(world, request), contents(adapter)

    def end(_: object) -> None:
        stage = _stage(world.place / "checkout")
        os.kill(stage, number)
        until(lambda: _is_deaf(stage))

    # No other write is answered before the program was told.
    proxy.plan(call(end, when="after"), at=10, times=1, matching=to("clusterpolicies"))
    shown = done(pipeline.apply(merged), ExitCode.TERMINATED)
    assert "SIGTERM arrived" in shown
    assert contents(adapter) == before
    done(pipeline.apply(merged))
    assert len(contents(adapter)) == len(before) + 50


@pytest.mark.parametrize("command", ["", "destroy policies", "plan", "plan a b"])
def test_wrong_usage(rendering: World, command: str) -> None:
    shown = done(rendering.run(f"{STAGES}/insights-stage {command}", rendering.place, {}), ExitCode.USAGE)
    assert shown.startswith("Error: ")
