"""The main job, shown: Insights to snapshot to cluster, on a real control plane and with real policies.

While the tools for that are built, it shows what a reviewer sees with no cluster.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import click

from applier.cluster.connection import Connection
from applier.cluster.policies import KubernetesCluster
from applier.kyverno_cli import KyvernoCli
from ci.testbed import corpus, drift, paths
from ci.testbed.controlplane import ControlPlane
from renderer.commandline import run
from renderer.errors import Failure
from renderer.manifest.document import Policy
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from tests.support.insights import InsightsStandIn

ROOT: Final = Path(__file__).resolve().parent.parent
ORGANIZATION: Final = "acme"
CLUSTER: Final = "demo"
#: The first so many of each kind that the server and the CLI accept.
PER_KIND: Final = 6
AT_LEAST: Final = 60
LOCK_NAMESPACE: Final = "insights-agent"
TOOLS: Final = ("etcd", "kube-apiserver", "kubectl", "kyverno")
#: What the change under review does to policies/sources: one policy now denies, another does so no more.
REVIEWED: Final = (
    ("namespaces/namespace-owner.yaml", "[Audit]", "[Deny]"),
    ("network/service-external-names.yaml", "[Deny]", "[Audit]"),
)


class DemoFailed(Failure):
    """The programs did not do what the demo says they do."""


class Demo:
    """The places and programs that the steps share."""

    def __init__(self, directory: Path, kubeconfig: Path, insights: InsightsStandIn) -> None:
        """Take a running cluster and a running stand-in."""
        self.snapshot = directory / "snapshot"
        self.insights = insights
        self.connection = Connection.open(kubeconfig=str(kubeconfig))
        self.cluster = KubernetesCluster(self.connection)
        self._environment = {
            "PATH": f"{paths.BINARIES}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "HOME": os.environ.get("HOME", str(directory)),
            "KUBECONFIG": str(kubeconfig),
            "FAIRWINDS_INSIGHTS_HOST": insights.url,
            "FAIRWINDS_ORG": ORGANIZATION,
            "FAIRWINDS_CLUSTER": CLUSTER,
            "FAIRWINDS_TOKEN": insights.token,
            "LOG_LEVEL": "error",
        }

    def run(self, *command: str, expect: int = 0, lines: int = 12) -> list[str]:
        """Run one of our programs, as `run_program` does."""
        return run_program(*command, environment=self._environment, expect=expect, lines=lines)

    def sync(self, expected: str = "") -> None:
        """Sync once and show what its last line sums up."""
        click.secho("$ insights-applier sync", bold=True)
        program = Path(sys.executable).parent / "insights-applier"
        done = subprocess.run(
            [str(program), "sync"], env=self._environment, stdout=subprocess.PIPE, text=True, check=False
        )
        line: JsonObject = json.loads(done.stdout.splitlines()[-1])
        click.echo(f"  {line['msg']} in {line['duration']}: {line['summary']}")
        if done.returncode or (expected and line["summary"] != expected):
            raise DemoFailed(f"The sync should have said: {expected or 'that it completed'}. {line.get('error', '')}")


def run_program(
    *command: str, environment: Mapping[str, str], expect: int = 0, lines: int = 12, place: Path | None = None
) -> list[str]:
    """Run one of our programs in a directory, show the end of what it prints, and insist on its exit code."""
    click.secho(f"$ {' '.join(command)}", bold=True)
    program = Path(sys.executable).parent / command[0]
    done = subprocess.run(
        [str(program), *command[1:]], env=environment, cwd=place, stdout=subprocess.PIPE, text=True, check=False
    )
    output = done.stdout.splitlines()
    if len(output) > lines:
        click.echo(f"  … {len(output) - lines} lines before these")
    for line in output[-lines:]:
        click.echo(f"  {line}")
    if done.returncode != expect:
        raise DemoFailed(f"`{' '.join(command)}` exited with {done.returncode} instead of {expect}.")
    return output


@contextmanager
def tools_being_built() -> Iterator[subprocess.Popen[str]]:
    """Build the tools in the background; whatever happens here, the build has ended afterwards."""
    build = subprocess.Popen(
        [str(ROOT / "ci/tools"), *TOOLS], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield build
    finally:
        build.terminate()
        build.communicate()


def wait_for(build: subprocess.Popen[str]) -> int:
    """Show what the build says until it has ended, and give its exit code."""
    click.secho(f"\nThe tools for the rest: {', '.join(TOOLS)}", fg="cyan", bold=True)
    for line in build.stdout or ():
        click.echo(f"  {line.rstrip()}")
    return build.wait()


def review(place: Path) -> None:
    """What a reviewer of a change to policies/ sees on a laptop: two snapshots, and what lies between them."""
    step(0, "A reviewer's laptop: two snapshots made from policies/, and no cluster (the tools are built meanwhile)")
    environment = {"PATH": "", "HOME": str(place), "LOG_LEVEL": "error"}
    sources = ROOT / "policies/sources"
    changed = shutil.copytree(sources, place / "changed")
    for name, old, new in REVIEWED:
        text = (changed / name).read_text()
        if old not in text:
            raise DemoFailed(f"{name} holds no {old} any more.")
        (changed / name).write_text(text.replace(old, new))
    of = ("--local-only", "--organization", ORGANIZATION, "--cluster", CLUSTER)
    for out, local in (("main", sources), ("proposed", changed)):
        render = ("insights-renderer", "render", "--out", out, "--local", str(local), *of)
        run_program(*render, environment=environment, lines=1, place=place)
    against = ("insights-applier", "plan", "proposed", "--against", "main")
    plan = run_program(*against, environment=environment, expect=2, lines=40, place=place)
    if not plan[0].startswith(f"{len(REVIEWED)} to update, "):
        raise DemoFailed(f"The plan should hold {len(REVIEWED)} updates and nothing else.")


def step(number: int, title: str) -> None:
    """Say what comes."""
    click.secho(f"\n{number}. {title}", fg="cyan", bold=True)


def show(demo: Demo) -> None:
    """The steps, in order."""
    step(1, "Insights wants real policies on the cluster: Kyverno's own, of every kind there is, and some of ours")
    validator = KyvernoCli(paths.BINARIES / "kyverno")
    choice = corpus.choose(demo.cluster, demo.connection, validator, per_kind=PER_KIND)
    policies = list(choice.policies)
    click.echo(
        f"  {len(policies)} policies of {len({policy.identity.kind for policy in policies})} kinds chosen; on the "
        f"way the server refused {choice.refused_by_server} and the kyverno CLI {choice.refused_by_cli}."
    )
    if len(policies) < AT_LEAST:
        raise DemoFailed(f"Only {len(policies)} policies were accepted, fewer than {AT_LEAST}.")
    demo.insights.publish(CLUSTER, corpus.answer(policies))

    step(2, "The first sync: fetch, plan, validate by kyverno CLI and server, apply all or nothing")
    demo.sync(f"Applied {len(policies)}, Updated 0, Removed 0, Failed 0")

    step(3, "A second sync finds nothing to do")
    demo.sync("Applied 0, Updated 0, Removed 0, Failed 0")

    step(4, "Somebody changes a policy of each kind by hand; Insights withdraws one policy and changes another")
    drifted = edit_by_hand(demo)
    withdrawn, changed = change_in_insights(demo, policies, drifted)
    click.echo(f"  edited by hand: {len(drifted)} policies, one leaf in one of each kind")
    click.echo(f"  withdrawn: {withdrawn}\n  changed in Insights: {changed}")

    step(5, "The same as a pipeline would: a snapshot that people review, and the plan for it")
    demo.run("insights-renderer", "render", "--out", str(demo.snapshot), lines=3)
    plan = demo.run("insights-applier", "plan", str(demo.snapshot), expect=2, lines=40)
    planned = {line for line in plan if line.startswith(("~ ", "- ", "+ "))}
    missing = [str(i) for i in drifted if not any(line.startswith(f"~ update {i} ") for line in planned)]
    if missing:
        raise DemoFailed(f"The plan does not hold the drift of {', '.join(missing)}.")

    step(6, "Apply the snapshot: the drift is repaired, the withdrawn policy goes")
    demo.run("insights-applier", "apply", str(demo.snapshot), "--allow-weaken", lines=40)
    demo.run("insights-applier", "plan", str(demo.snapshot))
    demo.sync("Applied 0, Updated 0, Removed 0, Failed 0")
    reported = Counter(status["status"] for status in demo.insights.statuses)
    click.echo(
        f"  Insights was told of {reported['success']} policies that succeeded and {reported['failed']} that failed."
    )


def edit_by_hand(demo: Demo) -> list[Identity]:
    """Change one leaf in one policy of each kind, and give their identities."""
    drifted: dict[str, Identity] = {}
    live = demo.cluster.observe()
    for identity, body in live.objects.items():
        if identity.kind.resource not in drifted and drift.change_a_leaf(demo.connection, identity, body):
            drifted[identity.kind.resource] = identity
    untouched = {identity.kind.resource for identity in live.objects} - drifted.keys()
    if untouched:
        raise DemoFailed(f"No leaf could be changed by hand in any of {', '.join(sorted(untouched))}.")
    return list(drifted.values())


def change_in_insights(demo: Demo, policies: list[Policy], drifted: list[Identity]) -> tuple[Identity, Identity]:
    """Publish the set without one policy and with another changed; give those two."""
    free = [policy for policy in policies if policy.identity not in drifted]
    withdrawn, changed = free[0], free[-1]
    metadata = changed.body["metadata"]
    annotations = {**(metadata.get("annotations") or {}), "example.com/reviewed-by": "security"}
    new = replace(changed, body={**changed.body, "metadata": {**metadata, "annotations": annotations}})
    rest = [new if policy is changed else policy for policy in policies if policy is not withdrawn]
    demo.insights.publish(CLUSTER, corpus.answer(rest))
    return withdrawn.identity, changed.identity


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--keep", is_flag=True, help="Leave the cluster up, and say how to use it.")
@click.option(
    "--dir", "directory", type=click.Path(path_type=Path), help="Where to keep it.  [default: a temporary folder]"
)
def demo(keep: bool, directory: Path | None) -> int:
    """Show the main job on a real control plane that is started here, on loopback, and ended again.

    It builds what it needs the first time (about 15 minutes on 2 cores), and meanwhile shows a review that needs no
    cluster. After that, all of it takes a minute.
    """
    with tools_being_built() as build, tempfile.TemporaryDirectory(prefix="policies-review-") as laptop:
        review(Path(laptop))
        failed = wait_for(build)
    if failed:
        return failed
    place = directory or Path(tempfile.mkdtemp(prefix="policies-demo-"))
    place.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if directory is None and not keep:
            stack.callback(shutil.rmtree, place, ignore_errors=True)
        plane = ControlPlane.start(
            place / "cluster", outlive=keep, report=lambda line: click.echo(f"  {line}"), binaries=paths.BINARIES
        )
        if not keep:
            stack.callback(plane.stop)
        insights = stack.enter_context(
            InsightsStandIn(token="demo-token", organization=ORGANIZATION, clusters=[CLUSTER])  # noqa: S106 - of the demo
        )
        parts = Demo(place, plane.kubeconfig, insights)
        corpus.ensure_namespace(parts.connection, LOCK_NAMESPACE)
        show(parts)
        if keep:
            explain(place, plane)
    click.secho("\nThe demo went as it should.", fg="green", bold=True)
    return 0


def explain(place: Path, plane: ControlPlane) -> None:
    """How to use what was kept."""
    click.secho("\nThe cluster stays up. To use it:", bold=True)
    click.echo(
        f"  export KUBECONFIG={plane.kubeconfig}\n"
        f"  {paths.BINARIES / 'kubectl'} get clusterpolicies.kyverno.io -o "
        "custom-columns='NAME:.metadata.name,OWNER:.metadata.annotations.insights\\.fairwinds\\.com/owned-by'\n"
        f"  .venv/bin/insights-applier plan {place / 'snapshot'}\n"
        f"To end it:\n  ci/cluster down --dir {place / 'cluster'}"
    )


if __name__ == "__main__":
    sys.exit(run(demo))
