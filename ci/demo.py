"""The main job, shown: Insights to snapshot to cluster, on a real control plane and with real policies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import click

from applier.cluster import KubernetesCluster
from applier.connection import Connection, ServerRefused
from applier.kyverno_cli import KyvernoCli
from ci.testbed import corpus, drift, paths, toolchain
from ci.testbed.controlplane import ControlPlane
from renderer.commandline import run
from renderer.errors import Failure
from renderer.manifest import yamlio
from renderer.manifest.document import Policy
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content
from renderer.render import Source, read_policies, render
from tests.support.insights import InsightsStandIn

ROOT: Final = Path(__file__).resolve().parent.parent
ORGANIZATION: Final = "acme"
CLUSTER: Final = "demo"
#: The first so many of each kind that the server and the CLI accept.
PER_KIND: Final = 6
AT_LEAST: Final = 60
LOCK_NAMESPACE: Final = "insights-agent"


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
        """Run one of our programs, show the end of what it prints, and insist on its exit code."""
        click.secho(f"$ {' '.join(command)}", bold=True)
        program = Path(sys.executable).parent / command[0]
        done = subprocess.run(
            [str(program), *command[1:]], env=self._environment, stdout=subprocess.PIPE, text=True, check=False
        )
        output = done.stdout.splitlines()
        if len(output) > lines:
            click.echo(f"  … {len(output) - lines} lines before these")
        for line in output[-lines:]:
            click.echo(f"  {line}")
        if done.returncode != expect:
            raise DemoFailed(f"`{' '.join(command)}` exited with {done.returncode} instead of {expect}.")
        return output

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


def choose(cluster: KubernetesCluster, connection: Connection, candidates: Iterable[Policy]) -> list[Policy]:
    """The first PER_KIND policies of each kind that a strict server dry run and the kyverno CLI accept."""
    chosen: dict[Identity, Policy] = {}
    count: Counter[str] = Counter()
    refused = 0
    for policy in candidates:
        kind = policy.identity.kind
        if policy.identity in chosen or count[kind.resource] == PER_KIND or kind not in cluster.resources():
            continue
        if policy.identity.namespace:
            ensure_namespace(connection, policy.identity.namespace)
        try:
            body = content(policy.body, kind)
            body["apiVersion"] = cluster.resources()[kind].api_version
            cluster.create(body, policy.identity, dry_run=True)
        except ServerRefused:
            refused += 1
            continue
        chosen[policy.identity] = policy
        count[kind.resource] += 1
    findings = KyvernoCli(paths.BINARIES / "kyverno").validate(list(chosen.values())).errors
    for identity in {finding.policy for finding in findings}:
        del chosen[identity]
    click.echo(
        f"  {len(chosen)} policies of {len({identity.kind for identity in chosen})} kinds chosen; on the way the server "
        f"refused {refused} and the kyverno CLI {len({finding.policy for finding in findings})}."
    )
    return list(chosen.values())


def ensure_namespace(connection: Connection, name: str) -> None:
    """Make the namespace if it is not there."""
    try:
        connection.send(
            "POST", "/api/v1/namespaces", body={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        )
    except ServerRefused as error:
        if error.status.code != 409:
            raise


def candidates() -> Iterator[Policy]:
    """Our own policies first, then Kyverno's, from its module's source."""
    own = sorted((ROOT / "policies" / "sources").rglob("*.yaml"))
    found, _ = read_policies(Source(name=str(path), data=path.read_bytes()) for path in own)
    yield from found
    yield from corpus.policies(toolchain.kyverno_source())


def answer(policies: Iterable[Policy]) -> str:
    """The policies as Insights would send them."""
    return "---\n".join(yamlio.dump({**policy.body, "metadata": _named(policy)}) for policy in policies)


def _named(policy: Policy) -> JsonObject:
    namespace = {"namespace": policy.identity.namespace} if policy.identity.namespace else {}
    return {**policy.body["metadata"], **namespace}


def step(number: int, title: str) -> None:
    """Say what comes."""
    click.secho(f"\n{number}. {title}", fg="cyan", bold=True)


def show(demo: Demo) -> None:
    """The steps, in order."""
    step(1, "Insights wants real policies on the cluster: Kyverno's own, of every kind there is, and some of ours")
    policies = choose(demo.cluster, demo.connection, candidates())
    if len(policies) < AT_LEAST:
        raise DemoFailed(f"Only {len(policies)} policies were accepted, fewer than {AT_LEAST}.")
    demo.insights.publish(CLUSTER, answer(policies))

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
    demo.run("insights-applier", "apply", str(demo.snapshot), lines=40)
    demo.run("insights-applier", "plan", str(demo.snapshot))
    demo.sync("Applied 0, Updated 0, Removed 0, Failed 0")
    reported = Counter(status["status"] for status in demo.insights.statuses)
    click.echo(f"  Insights was told of {reported['success']} policies that succeeded and {reported['failed']} that failed.")


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
    demo.insights.publish(CLUSTER, answer(rest))
    return withdrawn.identity, changed.identity


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--keep", is_flag=True, help="Leave the cluster up, and say how to use it.")
@click.option("--dir", "directory", type=click.Path(path_type=Path), help="Where to keep it.  [default: a temporary folder]")
def demo(keep: bool, directory: Path | None) -> int:  # noqa: FBT001 - a flag
    """Show the main job on a real control plane that is started here, on loopback, and ended again.

    It builds what it needs the first time (about 10 minutes on 2 cores), then takes less than a minute.
    """
    click.secho("0. The tools: kyverno CLI, etcd, kube-apiserver, kubectl", fg="cyan", bold=True)
    built = subprocess.run(
        [str(ROOT / "ci/tools"), "etcd", "kube-apiserver", "kubectl", "kyverno"], check=False
    ).returncode
    if built:
        return built
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
        ensure_namespace(parts.connection, LOCK_NAMESPACE)
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
