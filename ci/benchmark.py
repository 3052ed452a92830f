"""Times an in-sync plan against kubectl's diffs of the same policies, in one run, and prints ratios; or a fleet."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from applier.cluster import KubernetesCluster
from applier.connection import Connection
from applier.ports import ServerRefused
from ci import fleet_benchmark
from ci.testbed import corpus, paths
from ci.testbed.controlplane import ControlPlane
from renderer import snapshot
from renderer.commandline import run
from renderer.errors import Failure
from renderer.manifest import yamlio
from renderer.manifest.document import Policy
from renderer.manifest.normalize import content
from renderer.manifest.policyset import PolicySet
from renderer.render import Source, render

TOOLS: Final = ("etcd", "kube-apiserver", "kubectl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds of wall clock of a whole process, one figure a run."""

    command: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle run."""
        return statistics.median(self.seconds)


def real_cluster_policies(cluster: KubernetesCluster, wanted: int) -> Iterator[Policy]:
    """Kyverno's own ClusterPolicies that a strict dry run accepts, over and over, each time with another name."""
    accepted = []
    for policy in corpus.candidates():
        if policy.identity.kind.name != "ClusterPolicy":
            continue
        try:
            cluster.create(content(policy.body, policy.identity.kind), policy.identity, dry_run=True)
        except ServerRefused:
            continue
        accepted.append(policy)
        if len(accepted) == wanted:
            break
    for number in range(wanted):
        policy = accepted[number % len(accepted)]
        metadata = {**policy.body["metadata"], "name": f"p{number:05}-{policy.identity.name}"[:63].rstrip("-.")}
        yield from render([Source(name="bench", data=yamlio.dump({**policy.body, "metadata": metadata}).encode())])


def timed(command: Sequence[str], environment: dict[str, str], *, runs: int, accept: tuple[int, ...]) -> Timing:
    """Run the command so often; raises Failure when it does not end as it should."""
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        seconds.append(time.perf_counter() - started)
        if done.returncode not in accept:
            raise Failure(f"{' '.join(command)} exited with {done.returncode}: {done.stderr[-300:]}")
    shown = [Path(command[0]).name, *(part for part in command[1:] if not part.startswith("/"))]
    return Timing(command=" ".join(shown), seconds=tuple(seconds))


def measure(directory: Path, kubeconfig: Path, *, policies: int, runs: int) -> list[Timing]:
    """Put that many policies on the cluster, then time an in-sync plan and kubectl's two diffs of them."""
    cluster = KubernetesCluster(Connection.open(kubeconfig=str(kubeconfig)))
    cluster_snapshot = directory / "snapshot"
    wanted = PolicySet(real_cluster_policies(cluster, policies))
    snapshot.write(cluster_snapshot, snapshot.render_files(wanted, organization="acme", cluster="bench"))
    corpus.ensure_namespace(Connection.open(kubeconfig=str(kubeconfig)), "insights-agent")
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(directory),
        "KUBECONFIG": str(kubeconfig),
        "VALIDATE_POLICIES": "false",
    }
    applier = str(Path(sys.executable).parent / "insights-applier")
    timed([applier, "apply", str(cluster_snapshot)], environment, runs=1, accept=(0,))
    folder = str(cluster_snapshot / "clusterpolicies.kyverno.io")
    kubectl = str(paths.BINARIES / "kubectl")
    return [
        timed([applier, "plan", str(cluster_snapshot)], environment, runs=runs, accept=(0,)),
        # Exit code 1 says that there are differences: kubectl takes defaults, or its missing annotation, for some.
        timed(
            [kubectl, "diff", "--server-side", "--force-conflicts", "-f", folder], environment, runs=runs, accept=(0, 1)
        ),
        timed([kubectl, "diff", "-f", folder], environment, runs=runs, accept=(0, 1)),
    ]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--policies", default=200, show_default=True, type=click.IntRange(1, 20_000), help="How many.")
@click.option("--runs", default=3, show_default=True, type=click.IntRange(1, 50), help="Runs of each command.")
@click.option("--fleet", is_flag=True, help="Time fleets of clusters instead, and weigh their memory.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Write the figures to this file too.")
def bench(policies: int, runs: int, *, fleet: bool, output: Path | None) -> int:
    """Time an in-sync plan against `kubectl diff`, and print how many times as long kubectl takes.

    With --fleet, time 100 and 1,000 clusters of 60 policies each instead; --policies and --runs don't matter then.
    """
    return _bench_fleet(output) if fleet else _bench_plan(policies, runs, output)


def _bench_fleet(output: Path | None) -> int:
    figures = fleet_benchmark.measure()
    for line in fleet_benchmark.lines(figures):
        click.echo(line)
    if output:
        output.write_text(json.dumps({"fleet": figures.as_json()}, indent=2) + "\n")
    return 0


def _bench_plan(policies: int, runs: int, output: Path | None) -> int:
    built = subprocess.run([str(paths.ROOT / "ci/tools"), *TOOLS], check=False).returncode
    if built:
        return built
    with (
        tempfile.TemporaryDirectory(prefix="policies-bench-") as place,
        ControlPlane.start(Path(place) / "cluster") as plane,
    ):
        timings = measure(Path(place), plane.kubeconfig, policies=policies, runs=runs)
    ours = timings[0].median
    click.echo(
        f"\n{policies} ClusterPolicies in sync, {runs} runs, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    click.echo(f"{'command':<48} {'median':>8} {'min':>8} {'max':>8}  ratio")
    for timing in timings:
        low, high = min(timing.seconds), max(timing.seconds)
        click.echo(
            f"{timing.command:<48} {timing.median:7.2f}s {low:7.2f}s {high:7.2f}s  {timing.median / ours:5.1f} x"
        )
    if output:
        figures = {timing.command: {"seconds": timing.seconds, "ratio": timing.median / ours} for timing in timings}
        output.write_text(json.dumps({"policies": policies, "in_sync": figures}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(run(bench))
