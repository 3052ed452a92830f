"""Times a fleet of clusters against a stand-in for Insights that is a process of its own, and weighs its memory."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ci.testbed.paths import ROOT
from renderer import snapshot
from renderer.errors import Failure
from renderer.insights.config import Account, account
from renderer.insights.policies import fetch_policies
from renderer.insights.transport import Transport
from renderer.manifest import yamlio
from renderer.render import Source, render

SIZES: Final = (100, 1_000)
POLICIES: Final = 60

_ORGANIZATION: Final = "acme"
_TOKEN: Final = "bench-token"  # noqa: S105 - of the stand-in
_SAMPLE_SECONDS: Final = 0.1
_SHARE_CLUSTERS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of the program: `state` says whether the snapshots were there; memory is of all its processes."""

    clusters: int
    state: str
    seconds: float
    peak_mb: float

    @property
    def clusters_per_second(self) -> float:
        """How many clusters were done in a second."""
        return self.clusters / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Milliseconds that one cluster takes, by what is done, where nothing else runs."""

    http: float
    parse: float
    emit: float
    disk: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All that was measured."""

    policies: int
    answer_bytes: int
    runs: tuple[Run, ...]
    shares: Shares

    def as_json(self) -> dict[str, Any]:
        """The figures as JSON types."""
        return asdict(self)


def answer_of(count: int) -> bytes:
    """An answer of so many policies: the baseline's, over and over, each time with another name."""
    baseline = snapshot.read(ROOT / "policies" / "snapshot").policies
    documents = []
    for number, policy in zip(range(count), itertools.cycle(baseline), strict=False):
        metadata = {**policy.body["metadata"], "name": f"p{number:03}-{policy.identity.name}"}
        documents.append(yamlio.dump({**policy.body, "metadata": metadata}))
    return "---\n".join(documents).encode()


def measure(sizes: Sequence[int] = SIZES, policies: int = POLICIES) -> Figures:
    """Run fleets of those sizes, each twice: into an empty directory, and when all is in sync.

    Raises Failure when a run does not end as it should.
    """
    data = answer_of(policies)
    with tempfile.TemporaryDirectory(prefix="fleet-bench-") as place:
        directory = Path(place)
        names = [f"cluster-{number:05}" for number in range(max(sizes))]
        with stand_in(directory, data, names) as url:
            runs = [run for size in sizes for run in _runs(directory, url, names[:size])]
            shares = _shares(directory, account(host=url, token=_TOKEN), names[:_SHARE_CLUSTERS])
    return Figures(policies=policies, answer_bytes=len(data), runs=tuple(runs), shares=shares)


def lines(figures: Figures) -> Iterator[str]:
    """The figures for people."""
    yield f"{figures.policies} policies a cluster, {figures.answer_bytes / 1000:.0f} kB, {os.cpu_count()} cores"
    yield f"{'clusters':>8}  {'state':<8} {'seconds':>8} {'clusters/s':>11} {'peak memory':>12}"
    for run in figures.runs:
        yield (
            f"{run.clusters:>8}  {run.state:<8} {run.seconds:>8.1f} {run.clusters_per_second:>11.1f} "
            f"{run.peak_mb:>9.0f} MB"
        )
    first, last = figures.runs[0], figures.runs[-1]
    yield (f"Memory at {last.clusters} clusters is {last.peak_mb / first.peak_mb:.2f} times that at {first.clusters}.")
    spent = asdict(figures.shares)
    whole = sum(spent.values())
    yield "One cluster alone: " + ", ".join(
        f"{name} {value:.1f} ms ({value / whole:.0%})" for name, value in spent.items()
    )


@contextmanager
def stand_in(directory: Path, data: bytes, names: Sequence[str]) -> Iterator[str]:
    """A stand-in that gives every cluster the same answer; gives its URL."""
    (directory / "answer.yaml").write_bytes(data)
    (directory / "token").write_text(_TOKEN)
    command = [sys.executable, "-m", "tests.support.insights", "--token-file", str(directory / "token")]
    command += ["--organization", _ORGANIZATION, "--policies", str(directory / "answer.yaml")]
    command += [word for name in names for word in ("--cluster", name)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            yield server.stdout.readline().strip() if server.stdout else ""
        finally:
            server.terminate()


def _runs(directory: Path, url: str, names: Sequence[str]) -> Iterator[Run]:
    clusters = directory / "clusters.yaml"
    clusters.write_text("".join(f"- {{cluster: {name}, path: {_ORGANIZATION}/{name}}}\n" for name in names))
    out = directory / f"out-{len(names)}"
    command = [str(Path(sys.executable).parent / "insights-renderer"), "fleet"]
    command += ["--clusters", str(clusters), "--out", str(out)]
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "FAIRWINDS_INSIGHTS_HOST": url,
        "FAIRWINDS_TOKEN": _TOKEN,
        "FAIRWINDS_ORG": _ORGANIZATION,
    }
    for state in ("new", "in sync"):
        started = time.perf_counter()
        with (
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            ) as program,
            _peaks(program) as peaks,
        ):
            said, _ = program.communicate()
        seconds = time.perf_counter() - started
        if program.returncode:
            raise Failure(f"A fleet of {len(names)} clusters exited with {program.returncode}: {said[-300:]}")
        yield Run(clusters=len(names), state=state, seconds=seconds, peak_mb=sum(peaks.values()) / 1000)


@contextmanager
def _peaks(program: subprocess.Popen[str]) -> Iterator[dict[int, float]]:
    """The most memory in kB that each process of the program had, filled until the block ends."""
    peaks: dict[int, float] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_SAMPLE_SECONDS):
            for pid in _processes(program.pid):
                peaks[pid] = max(peaks.get(pid, 0), _peak_kb(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()


def _processes(pid: int) -> Iterator[int]:
    """The process and its children; whatever ends meanwhile is left out."""
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                yield from map(int, (task / "children").read_text().split())


def _peak_kb(pid: int) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1.024
    return 0


def _shares(directory: Path, insights: Account, names: Sequence[str]) -> Shares:
    """Do one cluster after the other in this process, and take the time of each step."""
    spent = dict.fromkeys(("http", "parse", "emit", "disk"), 0.0)

    @contextmanager
    def step(name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        spent[name] += (time.perf_counter() - started) * 1000 / len(names)

    with Transport(insights) as transport:
        for name in names:
            with step("http"):
                data = fetch_policies(transport, insights.on(_ORGANIZATION, name))
            with step("parse"):
                policies = render([Source(name="Insights", data=data)])
            with step("emit"):
                files = snapshot.render_files(policies, organization=_ORGANIZATION, cluster=name)
            with step("disk"):
                snapshot.write(directory / "shares" / name, files)
    return Shares(**spent)
