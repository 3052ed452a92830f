"""A fleet of clusters that a stand-in for Insights knows, and the program for it."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from renderer import snapshot
from tests.support.insights import InsightsStandIn, Request
from tests.support.policies import answer, cluster_policy, validating_policy
from tests.support.programs import ORGANIZATION, TOKEN, Programs

SIZE = 40
NAMES = [f"c{number:03}" for number in range(SIZE)]
#: A read that never comes lasts 30 seconds: who waits for it does not end within these.
SOON_SECONDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The program with a stand-in that has many clusters, and the list of them."""

    programs: Programs
    insights: InsightsStandIn

    @property
    def out(self) -> Path:
        return self.programs.directory / "out"

    def write_list(self, *names: str, **paths: str) -> None:
        """Write the file: the clusters, each in a folder of its name or in the one that is given."""
        entries = {name: f"{ORGANIZATION}/{name}" for name in names} | paths
        lines = [f"- {{cluster: {name}, path: {path}}}\n" for name, path in entries.items()]
        (self.programs.directory / "clusters.yaml").write_text("".join(lines))

    def command(self, *arguments: str) -> list[str]:
        return ["insights-renderer", "fleet", "--clusters", "clusters.yaml", "--out", "out", *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.programs.run(*self.command(*arguments))

    def start(self, *arguments: str, **settings: object) -> subprocess.Popen[str]:
        """Start it in a process group of its own, as a terminal does."""
        done: subprocess.Popen[str] = subprocess.Popen(  # type: ignore[call-overload]  # settings of Popen's own
            self.programs._command(tuple(self.command(*arguments))),
            env=self.programs.environment,
            cwd=self.programs.directory,
            start_new_session=True,
            text=True,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings},
        )
        return done

    def asked(self) -> list[str]:
        return [str(request.cluster) for request in self.insights.requests]

    def names_at(self, name: str) -> list[str]:
        """The policies of a cluster's snapshot, which must be whole."""
        found = snapshot.read(self.out / ORGANIZATION / name)
        assert (found.organization, found.cluster) == (ORGANIZATION, name)
        return [policy.identity.name for policy in found.policies]


@pytest.fixture
def fleet(offline: Programs) -> Iterator[Fleet]:
    with InsightsStandIn(token=TOKEN, organization=ORGANIZATION, clusters=NAMES) as insights:
        for name in NAMES:
            insights.publish(name, answer(cluster_policy(f"of-{name}"), validating_policy()))
        made = Fleet(programs=offline.with_(FAIRWINDS_INSIGHTS_HOST=insights.url), insights=insights)
        made.write_list(*NAMES)
        yield made


def tree(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def at_request(fleet: Fleet, number: int, act: Callable[[], object]) -> None:
    """Do that when so many requests have come, before the last of them is answered."""
    count = itertools.count(1)

    def look(_request: Request) -> None:
        if next(count) == number:
            act()

    fleet.insights._on_request = look
