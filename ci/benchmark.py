"""Times the applier beside kubectl and beside the least that the work can cost, in one run; or what its options say."""

from __future__ import annotations

import json
import os
import platform
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from ci import fleet_benchmark, impact_benchmark
from ci import soak as jobs_soak
from ci.benchmarks import page as page_benchmark
from ci.benchmarks import plot, speed
from ci.benchmarks.timing import Timing
from ci.testbed import browser, paths
from ci.testbed.controlplane import ControlPlane, Part
from renderer.commandline import run
from renderer.errors import InputError

TOOLS: Final = ("etcd", "kube-apiserver", "kubectl", "kyverno")
#: The ratios that `--ratios check` compares with, as `--ratios keep` wrote them.
KEPT: Final = paths.ROOT / "ci" / "benchmarks" / "ratios.json"
#: What the README shows.
PLOT: Final = paths.ROOT / ".github" / "speed.svg"
#: How much worse than the kept ones ratios may be: machines differ, and so do runs.
_TOLERANCE: Final = 1.25


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--policies", default=500, show_default=True, type=click.IntRange(1, 20_000), help="How many.")
@click.option("--runs", default=3, show_default=True, type=click.IntRange(1, 50), help="Runs of each command.")
@click.option("--loop/--no-loop", default=True, help="Time one kubectl a policy too, which takes minutes.")
@click.option(
    "--kyverno/--no-kyverno", default=True, help="Time it under Kyverno's admission too, which takes minutes."
)
@click.option(
    "--ratios",
    type=click.Choice(["check", "keep"]),
    help="Exit with 1 where one is more than a quarter worse than the kept one; or keep these, and the plot.",
)
@click.option("--fleet", "instead", flag_value="fleet", help="Time fleets of clusters instead, and weigh their memory.")
@click.option(
    "--page",
    "instead",
    flag_value="page",
    help="Time the HTML report of --policies changes instead, in a real Chromium.",
)
@click.option(
    "--impact",
    type=click.IntRange(10, 100_000),
    is_flag=False,
    flag_value=5_000,
    metavar="[N]",
    help=f"Time `plan --impact` of {impact_benchmark.POLICIES} new policies on N workloads (5000) instead, in a "
    "directory and in a cluster, beside a bare `kyverno apply`.",
)
@click.option(
    "--soak",
    type=click.IntRange(1),
    is_flag=False,
    flag_value=2000,
    metavar="[N]",
    help="Run N on-demand jobs (2000) instead, while runners are killed; exit with 1 where one is lost or runs twice.",
)
@click.option("--seed", type=int, help="What the soak's chances begin with.  [default: a new one, which is told]")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Write the figures to this file too.")
def bench(  # noqa: PLR0913 - a flag each
    policies: int,
    runs: int,
    *,
    loop: bool,
    kyverno: bool,
    ratios: str | None,
    instead: str | None,
    impact: int | None,
    soak: int | None,
    seed: int | None,
    output: Path | None,
) -> int:
    """Time plan, sync and apply beside kubectl, in one run on one machine, and print how they compare.

    With --fleet, time 100 and 1,000 clusters of 60 policies each instead; no other option but --json matters then.
    With --page and --impact, --runs matters, too. With --soak, nothing is timed.
    """
    if soak:
        return _soak(soak, seed)
    if impact:
        return _bench_impact(impact, runs, output)
    if instead == "fleet":
        return _bench_fleet(output)
    if instead == "page":
        return _bench_page(policies, runs, output)
    kept = _kept() if ratios == "check" else {}
    built = subprocess.run([str(paths.ROOT / "ci/tools"), *TOOLS], check=False).returncode
    if built:
        return built
    with tempfile.TemporaryDirectory(prefix="policies-bench-") as place:
        measured = speed.compare(Path(place), policies=policies, runs=runs, loop=loop, kyverno=kyverno)
    for line in _lines(measured):
        click.echo(line)
    caption = (
        f"{policies} policies, median of {runs} runs, logarithmic, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}"
    )
    figures = {
        "caption": caption,
        "seconds": {name: {one.name: one.seconds for one in found} for name, found in measured.timings.items()},
        "ratios": {goal.name: round(goal.ratio, 3) for goal in measured.goals},
    }
    if output:
        output.write_text(json.dumps(figures, indent=2) + "\n")
    if ratios == "keep":
        PLOT.parent.mkdir(exist_ok=True)
        PLOT.write_text(plot.svg(measured.timings, caption=caption))
        KEPT.write_text(json.dumps(figures, indent=2) + "\n")
    worse = list(_worse(measured.goals, kept))
    for line in worse:
        click.echo(line)
    return 1 if worse else 0


def _kept() -> dict[str, float]:
    """The ratios to compare with, before anything is measured. Raises InputError where there are none."""
    try:
        kept: dict[str, float] = json.loads(KEPT.read_text())["ratios"]
    except FileNotFoundError:
        raise InputError(
            f"No ratios are kept yet: {KEPT} does not exist.", hint="`ci/bench --ratios keep` measures and keeps them."
        ) from None
    return kept


def _lines(measured: speed.Comparison) -> Iterator[str]:
    for heading, timings in measured.timings.items():
        yield f"\n{heading}"
        yield f"  {'':<42} {'median':>8} {'min':>8} {'max':>8}"
        yield from (_line(timing) for timing in timings)
    yield ""
    yield from map(str, measured.goals)


def _line(timing: Timing) -> str:
    low, high = min(timing.seconds), max(timing.seconds)
    return f"  {timing.name:<42} {timing.median:7.2f}s {low:7.2f}s {high:7.2f}s"


def _worse(goals: tuple[speed.Goal, ...], kept: Mapping[str, float]) -> Iterator[str]:
    for goal in goals:
        before = kept.get(goal.name, goal.ratio)
        times = goal.ratio / before if goal.most else before / goal.ratio
        if times > _TOLERANCE:
            yield f"Worse than before: {goal.name} was {before:.2f} and is {goal.ratio:.2f}."


def _soak(jobs: int, seed: int | None) -> int:
    built = subprocess.run([str(paths.ROOT / "ci/tools")], check=False).returncode
    if built:
        return built
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    click.echo(f"{jobs} on-demand jobs, seed {seed}")
    with tempfile.TemporaryDirectory(prefix="policies-soak-") as place:
        cluster, logs = Path(place) / "cluster", Path(place) / "logs"
        logs.mkdir()
        with ControlPlane.start(cluster, parts=[Part.JOBS]) as plane:
            plane.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": jobs_soak.NAMESPACE}})
            result = jobs_soak.soak(plane, jobs=jobs, seed=seed, directory=logs, report=click.echo)
    for line in result.lines():
        click.echo(line)
    return 0 if result.is_good else 1


def _bench_impact(workloads: int, runs: int, output: Path | None) -> int:
    built = subprocess.run([str(paths.ROOT / "ci/tools"), *impact_benchmark.TOOLS], check=False).returncode
    if built:
        return built
    with tempfile.TemporaryDirectory(prefix="impact-bench-") as place:
        figures = impact_benchmark.measure(Path(place), workloads=workloads, runs=runs)
    for line in figures.lines():
        click.echo(line)
    if output:
        output.write_text(json.dumps({"impact": asdict(figures)}, indent=2) + "\n")
    return 0


def _bench_fleet(output: Path | None) -> int:
    figures = fleet_benchmark.measure()
    for line in fleet_benchmark.lines(figures):
        click.echo(line)
    if output:
        output.write_text(json.dumps({"fleet": figures.as_json()}, indent=2) + "\n")
    return 0


def _bench_page(policies: int, runs: int, output: Path | None) -> int:
    built = subprocess.run([str(paths.ROOT / "ci/tools"), browser.NAME], check=False).returncode
    if built:
        return built
    timings = page_benchmark.measure(policies=policies, runs=runs)
    for timing in timings:
        click.echo(_line(timing))
    if output:
        output.write_text(json.dumps({"page": {timing.name: timing.seconds for timing in timings}}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(run(bench))
