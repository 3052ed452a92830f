"""Puts the applier beside kubectl, and beside the least that the work can cost, on one cluster in one run."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from applier.cluster.connection import Connection
from applier.cluster.policies import KubernetesCluster
from ci.benchmarks import policies as real
from ci.benchmarks.timing import Command, Timing, once, take_turns
from ci.fleet_benchmark import stand_in
from ci.testbed import corpus, paths
from ci.testbed.controlplane import ControlPlane, Part
from renderer import snapshot
from renderer.errors import Failure
from renderer.manifest import yamlio
from renderer.manifest.policyset import PolicySet
from renderer.render import Source, render

_ORGANIZATION: Final = "acme"
_CLUSTER: Final = "bench"
_TOKEN: Final = "bench-token"  # noqa: S105 - of the stand-in
_COLLECTION: Final = "kyverno.io/v1/clusterpolicies"
_WIPE_SECONDS: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """How one time compares with another one, and how it should: at most, or at least, so many times as long."""

    name: str
    ratio: float
    most: float = 0
    least: float = 0

    @property
    def met(self) -> bool:
        """Whether it is as it should be."""
        return self.ratio <= self.most if self.most else self.ratio >= self.least

    def __str__(self) -> str:
        bound = f"at most {self.most:g}" if self.most else f"at least {self.least:g}"
        return f"{self.name}: {self.ratio:.2f} ({bound}: {'met' if self.met else 'MISSED'})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What was timed, under the headings in which tables and plots show it, and what follows from it."""

    timings: Mapping[str, Sequence[Timing]]
    goals: tuple[Goal, ...]


def compare(directory: Path, *, policies: int, runs: int, loop: bool, kyverno: bool) -> Comparison:
    """Time everything in `directory`. With `loop` also one kubectl a policy, with `kyverno` also under admission.

    Raises Failure when something does not end as it should.
    """
    with _scene(directory / "plain", policies) as scene:
        plain = scene.timed(runs, loop=loop)
    timings = {f"{heading} of {policies} ClusterPolicies": found for heading, found in plain.items()}
    goals = _goals({timing.name: timing.median for found in plain.values() for timing in found})
    if kyverno:
        with _scene(directory / "kyverno", policies, Part.KYVERNO) as scene:
            admitted = scene.timed_under_admission(runs)
        timings |= {f"{heading}, admitted by Kyverno": found for heading, found in admitted.items()}
        names = {timing.name: timing.median for found in admitted.values() for timing in found}
        goals += (
            Goal(
                name="With Kyverno: apply creating all / kubectl apply --server-side",
                ratio=names["apply, all new"] / names["kubectl apply --server-side, all new"],
                most=2,
            ),
        )
    return Comparison(timings=timings, goals=goals)


def _goals(medians: Mapping[str, float]) -> tuple[Goal, ...]:
    plan, floor, sync = medians["plan"], medians["floor"], medians["sync"]
    goals = [
        Goal(name="plan in sync / floor", ratio=plan / floor, most=1.5),
        Goal(
            name="kubectl diff --server-side / plan in sync",
            ratio=medians["kubectl diff --server-side"] / plan,
            least=5,
        ),
        Goal(name="sync in sync / floor", ratio=sync / floor, most=2),
        Goal(
            name="apply creating all / kubectl apply --server-side",
            ratio=medians["apply, all new"] / medians["kubectl apply --server-side, all new"],
            most=2,
        ),
        Goal(
            name="apply changing one / (plan in sync + kyverno apply of that one)",
            ratio=medians["apply, one changed"] / (plan + medians["kyverno apply of one"]),
            most=1.3,
        ),
    ]
    if "kubectl apply, one a policy" in medians:
        ratio = medians["kubectl apply, one a policy"] / sync
        goals.append(Goal(name="kubectl apply, one a policy / sync in sync", ratio=ratio, least=100))
    return tuple(goals)


@contextmanager
def _scene(directory: Path, count: int, *parts: Part) -> Iterator[_Scene]:
    directory.mkdir()
    with ControlPlane.start(directory / "cluster", parts=parts) as plane:
        connection = Connection.open(kubeconfig=str(plane.kubeconfig))
        corpus.ensure_namespace(connection, "insights-agent")
        wanted = real.multiplied(real.accepted(KubernetesCluster(connection)), count)
        data = corpus.answer(wanted).encode()
        with stand_in(directory, data, [_CLUSTER]) as url:
            yield _Scene(directory, plane, connection, wanted, url)


class _Scene:
    """A cluster, the policies that it should have, and the commands that bring them there."""

    def __init__(
        self, directory: Path, plane: ControlPlane, connection: Connection, wanted: PolicySet, insights: str
    ) -> None:
        self._plane = plane
        self._connection = connection
        self._snapshot = _written(directory / "snapshot", wanted)
        self._changed = _written(directory / "changed", _with_one_changed(wanted))
        self._environment = {
            "PATH": f"{paths.BINARIES}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "HOME": str(directory),
            "KUBECONFIG": str(plane.kubeconfig),
            "FAIRWINDS_INSIGHTS_HOST": insights,
            "FAIRWINDS_TOKEN": _TOKEN,
            "FAIRWINDS_ORG": _ORGANIZATION,
            "FAIRWINDS_CLUSTER": _CLUSTER,
            # Each run is to be as the first one.
            "INSIGHTS_VALIDATION_CACHE": "false",
        }

    def timed(self, runs: int, *, loop: bool) -> dict[str, list[Timing]]:
        """Everything that is timed without admission."""
        created = self._created(runs)
        created.append(once(self._kubectl("kubectl apply, all new", "apply", before=self._wipe)))
        self._put_in_place()
        in_sync = self._in_sync(runs)
        if loop:
            in_sync.append(once(self._one_by_one()))
        # kubectl has put its own annotations on them.
        self._wipe()
        self._put_in_place()
        return {"Nothing to do": in_sync, "All new": created, "One changed": self._one_changed(runs)}

    def timed_under_admission(self, runs: int) -> dict[str, list[Timing]]:
        """What is timed where Kyverno admits every write."""
        created = self._created(runs)
        self._put_in_place()
        in_sync = take_turns([self._ours("plan", "plan", str(self._snapshot))], runs=runs)
        return {"Nothing to do": list(in_sync.values()), "All new": created}

    def _created(self, runs: int) -> list[Timing]:
        commands = [
            self._ours("apply, all new", "apply", str(self._snapshot), before=self._wipe),
            self._kubectl("kubectl apply --server-side, all new", "apply", "--server-side", before=self._wipe),
        ]
        timings = list(take_turns(commands, runs=runs).values())
        self._wipe()
        return timings

    def _in_sync(self, runs: int) -> list[Timing]:
        served = KubernetesCluster(self._connection).resources().values()
        collections = [f"{found.kind.group}/{found.version}/{found.kind.plural}" for found in served]
        floor = [sys.executable, "-m", "ci.benchmarks.floor", str(self._snapshot), *collections]
        commands = [
            Command(name="floor", arguments=floor, environment=self._environment | {"PYTHONPATH": str(paths.ROOT)}),
            self._ours("plan", "plan", str(self._snapshot)),
            self._ours("sync", "sync"),
            # Exit code 1 says that there are differences: kubectl takes some defaults for them.
            self._kubectl("kubectl diff --server-side", "diff", "--server-side", "--force-conflicts", accept=(0, 1)),
            self._kubectl("kubectl diff", "diff", accept=(0, 1)),
            self._kubectl("kubectl apply --server-side", "apply", "--server-side", "--force-conflicts"),
            self._kubectl("kubectl apply", "apply"),
        ]
        return list(take_turns(commands, runs=runs).values())

    def _one_by_one(self) -> Command:
        script = 'for file in "$1"/*.yaml; do kubectl apply -f "$file" || exit; done'
        arguments = ["/bin/sh", "-c", script, "sh", str(self._folder)]
        return Command(name="kubectl apply, one a policy", arguments=arguments, environment=self._environment)

    def _one_changed(self, runs: int) -> list[Timing]:
        one = next(iter(sorted(self._folder.glob("*.yaml"))))
        nothing = self._snapshot.parent / "nothing.yaml"
        nothing.write_text('{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "nothing"}}\n')
        kyverno = [str(paths.BINARIES / "kyverno"), "apply", str(one), "--resource", str(nothing)]
        commands = [
            self._ours("apply, one changed", "apply", str(self._changed), before=self._put_in_place),
            Command(name="kyverno apply of one", arguments=kyverno, environment=self._environment, accept=(0, 1)),
        ]
        return list(take_turns(commands, runs=runs).values())

    @property
    def _folder(self) -> Path:
        return self._snapshot / "clusterpolicies.kyverno.io"

    def _ours(self, name: str, *arguments: str, before: Callable[[], None] = lambda: None) -> Command:
        program = str(Path(sys.executable).parent / "insights-applier")
        return Command(name=name, arguments=[program, *arguments], environment=self._environment, before=before)

    def _kubectl(
        self,
        name: str,
        *arguments: str,
        accept: tuple[int, ...] = (0,),
        before: Callable[[], None] = lambda: None,
    ) -> Command:
        command = [str(paths.BINARIES / "kubectl"), *arguments, "-f", str(self._folder)]
        return Command(name=name, arguments=command, environment=self._environment, accept=accept, before=before)

    def _put_in_place(self) -> None:
        once(self._ours("apply", "apply", str(self._snapshot)))

    def _wipe(self) -> None:
        self._connection.send("DELETE", f"/apis/{_COLLECTION}", body={"kind": "DeleteOptions", "apiVersion": "v1"})
        until = time.monotonic() + _WIPE_SECONDS
        while self._connection.get(f"/apis/{_COLLECTION}?limit=1")["items"]:
            if time.monotonic() > until:
                raise Failure("The policies of the last run don't go.")
            time.sleep(0.1)


def _written(directory: Path, policies: PolicySet) -> Path:
    snapshot.write(directory, snapshot.render_files(policies, organization=_ORGANIZATION, cluster=_CLUSTER))
    return directory


def _with_one_changed(policies: PolicySet) -> PolicySet:
    first, *others = policies
    metadata = {**first.body["metadata"], "annotations": {"policies.kyverno.io/description": "Another text."}}
    changed = render([Source(name="bench", data=yamlio.dump({**first.body, "metadata": metadata}).encode())])
    return PolicySet([*changed, *others])
