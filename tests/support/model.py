"""The protocol, enumerated: every state that runs can leave on a server, whatever disturbs each of them.

The processes are the product's own code: `lease`, `recovery`, `journal`, `transaction`, `rollback`, `standing`. What is
modelled is the server (policies, ConfigMaps and the Lease, with their versions and preconditions), time, and what goes
wrong at each write of a run: it dies before or after the server acts; somebody edits or makes a policy; or it freezes
until its Lease is over, another run goes through, and the write arrives at some moment of that run or after it. Writes
are made one at a time, and renewals of the Lease are left out: a run that is not frozen is quicker than its Lease.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar, cast
from unittest.mock import patch

from applier import pipeline
from applier.guards.refusals import Allowed, MaxDelete
from applier.journal.configmaps import ConfigMapStore
from applier.journal.found import journals
from applier.journal.journal import StoredJournal
from applier.journal.key import Key
from applier.lock.elector import Durations, LeaseName, _Elector, finished
from applier.ports import Journal, ServerRefused, Status
from applier.recovery import Journalling, Recovery
from applier.stop import Stop
from applier.transaction import execution, rollback
from applier.transaction.execution import execute
from applier.transaction.standing import standing
from applier.transaction.writes import WriteSettings
from renderer.errors import Failure
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content
from renderer.manifest.ownership import is_owned
from renderer.manifest.policyset import PolicySet
from tests.support.journals import SimulatedConfigMaps
from tests.support.mortal import Dead
from tests.support.policies import cluster_policy, desired, identity_of, live, live_object
from tests.support.simulator import SimulatedCluster

T = TypeVar("T")
WHERE: Final = LeaseName(namespace="here", name="lock")
DURATIONS: Final = Durations()
SETTINGS: Final = WriteSettings(concurrency=1, grace=0.0, delete_timeout=1.0, unsettled=0.0)
ALLOWED: Final = Allowed(empty=True, weaken=True, max_delete=MaxDelete.of("100%"))
BEFORE: Final = (cluster_policy("changed"), cluster_policy("withdrawn"))
AFTER: Final = (cluster_policy("changed", message="Other."), cluster_policy("new"))
SYNCED: Final = (cluster_policy("changed", message="A third."), cluster_policy("withdrawn"), cluster_policy("late"))
_START: Final = live(*map(live_object, BEFORE)).objects
OBJECTS: Final = tuple(identity_of(body) for body in (*BEFORE, AFTER[1], SYNCED[2]))
#: A version is never given twice, in whichever world.
_VERSIONS: Final = itertools.count(100_000)
_WRITES: Final = {"create", "patch", "delete", "write_config_map", "delete_config_map", "write_lease"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of run: what it wants (None: it only recovers), its key, and whether it supersedes a journal."""

    name: str
    wants: PolicySet | None = None
    key: Key | None = None
    supersedes: bool = False


APPLY: Final = Kind(name="apply", wants=desired(*AFTER), key=Key(b"the first token"))
SYNC: Final = Kind(name="sync", wants=desired(*SYNCED), key=Key(b"the rotated token"), supersedes=True)
RECOVER: Final = Kind(name="recover", key=Key(b"the first token"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What goes wrong at the `at`-th write of a run: `how` is dies-before, dies-after, edit or freeze.

    An edit is of the object of that index. While it is frozen the run `other` goes through, and the write arrives
    before that one's `lands`-th write (0: after its end).
    """

    at: int
    how: str
    index: int = 0
    other: Kind = RECOVER
    lands: int = 0

    def __str__(self) -> str:
        if self.how == "freeze":
            return f"frozen at write {self.at}, which arrives at write {self.lands} of {self.other.name}"
        return f"{self.how} at write {self.at}" + (f" of {OBJECTS[self.index]}" if self.how == "edit" else "")


@dataclass(slots=True)
class State:
    """What is on the server, and what may be there at rest.

    `edits` are those that nobody may undo, as they were made; `rests` is what the last plans found and wanted, and
    `touched` of that is what somebody edited since.
    """

    objects: dict[Identity, JsonObject]
    maps: dict[str, JsonObject] = field(default_factory=dict)
    lease: JsonObject | None = None
    edits: dict[Identity, JsonObject] = field(default_factory=dict)
    rests: list[dict[Identity, JsonObject]] = field(default_factory=list)
    touched: set[Identity] = field(default_factory=set)
    steps: tuple[str, ...] = ()

    def key(self) -> str:
        """What tells this state from others: names, UIDs, versions and times are left out where only they differ."""
        seen = live(*self.objects.values())
        found = journals(
            ConfigMapStore(_maps(self.maps), WHERE.namespace),
            APPLY.key,
            cluster=SimulatedCluster().identity(),
            lease="lease-uid",
            finished=finished(self.lease) if self.lease else -1,
        )
        told = [
            (
                one.committed, one.outlived, one.problem, one.trust, one.head and len(one.head.supersedes),
                [(change.identity, change.action, change.before and change.before["spec"], change.after,
                  standing(change, seen)) for change in one.changes],
            )
            for one in found
        ]  # fmt: skip
        held = self.lease and bool(self.lease["spec"]["holderIdentity"])
        bodies = sorted((identity, content(body, identity.kind)) for identity, body in self.objects.items())
        chunks = len(self.maps) - len(found)
        return repr(
            (
                held,
                bodies,
                told,
                chunks,
                sorted(self.edits),
                sorted(self.touched),
                [sorted(one.items()) for one in self.rests],
            )
        )


def _but(contents: dict[Identity, JsonObject], touched: set[Identity]) -> dict[Identity, JsonObject]:
    return {identity: body for identity, body in contents.items() if identity not in touched}


def _maps(objects: dict[str, JsonObject]) -> SimulatedConfigMaps:
    maps = SimulatedConfigMaps()
    maps.objects, maps._versions = objects, _VERSIONS
    return maps


def start() -> State:
    """A server that holds BEFORE, and that no run was at yet."""
    return State(dict(_START))


class World:
    """One server, and the processes that work at it, one inside another where one is frozen.

    A mutant takes another `cluster`; makes another journal of the one that a run would keep (`journal`); or lets runs
    write though their Lease is over (`fenced`).
    """

    def __init__(self, state: State) -> None:
        """Take that state; it is copied."""
        self.cluster = SimulatedCluster(state.objects)
        self.cluster._versions = _VERSIONS
        self.maps = _maps(copy.deepcopy(state.maps))
        self.lease, self.edits = copy.deepcopy(state.lease), copy.deepcopy(state.edits)
        self.rests, self.touched = list(state.rests), set(state.touched)
        self.now = 0.0
        self.journal: Callable[[StoredJournal], Journal] = lambda journal: journal
        self.fenced = True
        #: Who wrote a policy or a ConfigMap after another had taken the Lease from it.
        self.intrusions: list[str] = []
        self.holder: Process | None = None

    def state(self) -> State:
        """A copy of what is there."""
        held = copy.deepcopy((self.cluster.objects, self.maps.objects, self.lease, self.edits))
        return State(*held, rests=list(self.rests), touched=set(self.touched))

    def sleep(self, seconds: float) -> None:
        """Time passes for everybody."""
        self.now += max(seconds, 0.001)

    def read_lease(self, namespace: str, name: str) -> JsonObject | None:
        """See `ports.Leases`."""
        assert (namespace, name) == (WHERE.namespace, WHERE.name)
        return copy.deepcopy(self.lease)

    def write_lease(self, body: JsonObject, *, seconds: float) -> JsonObject:
        """See `ports.Leases`."""
        assert seconds > 0
        held = self.lease["metadata"] if self.lease else {"resourceVersion": "0", "uid": "lease-uid"}
        if body["metadata"].get("resourceVersion", "0") != held["resourceVersion"]:
            raise ServerRefused(Status(code=409, reason="Conflict", message="conflict"))
        version = {"resourceVersion": str(int(held["resourceVersion"]) + 1), "uid": held["uid"]}
        self.lease = {**copy.deepcopy(body), "metadata": {**body["metadata"], **version}}
        return copy.deepcopy(self.lease)

    def edit(self, identity: Identity) -> None:
        """Somebody else changes the policy, or makes it."""
        if identity in self.cluster.objects:
            self.cluster.edit(identity, byHand=not self.cluster.objects[identity]["spec"].get("byHand"))
        else:
            self.cluster.objects[identity] = live_object(cluster_policy(identity.name, message="By hand."), owned=False)
        self.edits[identity] = self.cluster.contents()[identity]
        self.touched.add(identity)

    def planned(self, wants: PolicySet) -> None:
        """A plan is made: what somebody did before it is the plan's to judge, and it is all of it or nothing."""
        self.require_edits()
        self.edits.clear()
        now = self.cluster.contents()
        wanted = {identity: body for identity, body in now.items() if not is_owned(body)}
        wanted |= {policy.identity: content(policy.body, policy.identity.kind) for policy in wants}
        if not self.maps.objects:
            self.rests, self.touched = [now], set()
        self.rests = [*self.rests, wanted]

    def at_rest(self) -> bool:
        """Whether all that nobody else touched is as before the last runs, or as one of them wanted."""
        last = self.rests[-1:] if self.intrusions else self.rests
        now = _but(self.cluster.contents(), self.touched)
        return any(now == _but(one, self.touched) for one in last)

    def require_edits(self) -> None:
        """What somebody else did after a plan was made stands."""
        now = self.cluster.contents()
        for identity, body in self.edits.items():
            if now.get(identity, {}).get("spec") != body["spec"]:
                raise Broken(f"an edit of {identity} is lost")


class Broken(AssertionError):
    """What must hold does not; the message says what, the notes by which steps."""


class Process:
    """One run, from taking the lock to giving it up."""

    def __init__(self, world: World, kind: Kind, trouble: Trouble | None = None) -> None:
        """Nothing is sent yet."""
        self.world, self.kind, self.trouble = world, kind, trouble
        self.sent = 0
        self.followed = 0
        self.stop = Stop(clock=lambda: world.now)
        self.before_write: Callable[[int], None] = lambda _number: None
        self.elector = _Elector(self._wired(world), WHERE, f"process-{id(self)}", self.stop, DURATIONS)

    def _wired(self, server: T) -> T:
        return cast("T", _Wire(server, self))

    def run(self) -> None:
        """Go through, or die on the way."""
        with suppress(Dead):
            try:
                self._run()
            except Failure:
                self.elector.release(finished=False)

    def _run(self) -> None:
        world = self.world
        held = self.elector.acquire(until=world.now + 3600)
        if not world.fenced:
            self.stop.work_until(float("inf"))
        world.holder = self
        cluster = self._wired(world.cluster)
        store = ConfigMapStore(self._wired(world.maps), WHERE.namespace)
        kind = self.kind
        recovery = Recovery(
            cluster=cluster,
            journalling=Journalling(store=store, key=kind.key, supersede=kind.supersedes),
            held=held,
            stop=self.stop,
            settings=SETTINGS,
        )
        if kind.wants is None:
            # A person trusts what can't be verified.
            recovery.accept = lambda _found: None
            for found in recovery.pending():
                if not recovery.roll_back(found).over:
                    break
        else:
            superseded = recovery.before_a_run()
            prepared = _prepared(world.cluster, kind)
            pipeline.require_allowed(prepared)
            world.planned(kind.wants)
            execute(
                cluster,
                prepared.plan.changes,
                self.stop,
                journal=world.journal(recovery.journal(superseded)),
                settings=SETTINGS,
            )
        self.elector.release(finished=held.finished.is_set())

    def send(self, name: str, request: Callable[[], Any]) -> Any:
        """Send one write, with what is to go wrong at it."""
        self.sent += 1
        self.before_write(self.sent)
        trouble = self.trouble
        if trouble is None or trouble.at != self.sent:
            return self._arrive(name, request)
        if trouble.how == "dies-before":
            raise Dead
        if trouble.how == "freeze":
            return self._frozen(name, request, trouble)
        if trouble.how == "edit":
            self.world.edit(OBJECTS[trouble.index])
        answer = self._arrive(name, request)
        if trouble.how == "dies-after":
            raise Dead
        return answer

    def _frozen(self, name: str, request: Callable[[], Any], trouble: Trouble) -> Any:
        other = Process(self.world, trouble.other)
        answers: list[Callable[[], Any]] = []

        def land(number: int) -> None:
            if number == trouble.lands or (number == 0 and not answers):
                answers.append(_answer(lambda: self._arrive(name, request)))

        other.before_write = land
        self.world.now += 2 * DURATIONS.lease
        other.run()
        self.followed = other.sent
        land(0)
        return answers[0]()

    def _arrive(self, name: str, request: Callable[[], Any]) -> Any:
        answer = request()
        if self.world.holder not in (self, None) and name != "write_lease":
            self.world.intrusions.append(f"{self.kind.name}: {name}")
        return answer


_PLANS: dict[str, pipeline.Prepared] = {}


def _prepared(cluster: SimulatedCluster, kind: Kind) -> pipeline.Prepared:
    """The product's plan; the same for the same objects, so that it is made once."""
    assert kind.wants is not None
    key = f"{kind.name} {sorted(cluster.objects.items())}"
    if key not in _PLANS:
        _PLANS[key] = pipeline.prepare(cluster, kind.wants, allowed=ALLOWED)
    return _PLANS[key]


def _in_turn(function: Callable[[Any], Any], items: Sequence[Any], **_settings: object) -> list[Any]:
    """As `in_parallel`, one at a time."""
    return [function(item) for item in items]


def _answer(request: Callable[[], Any]) -> Callable[[], Any]:
    """What the request gives, or raises, later."""
    try:
        given = request()
    except Failure as error:
        failure = error

        def refused() -> Any:
            raise failure

        return refused
    return lambda: given


class _Wire:
    """A server as one process reaches it."""

    def __init__(self, server: object, process: Process) -> None:
        self._server, self._process = server, process

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._server, name)
        if name not in _WRITES:
            return call

        def send(*arguments: Any, **named: Any) -> Any:
            if named.get("dry_run"):
                return call(*arguments, **named)
            return self._process.send(name, lambda: call(*arguments, **named))

        return send


@dataclass(slots=True)
class Search:
    """Goes through every state that disturbed runs can leave; it counts runs, states, and writes that came late."""

    mutant: Callable[[World], None] = lambda _world: None
    runs: int = 0
    late: int = 0
    seen: set[str] = field(default_factory=set)

    def explore(self, depth: int) -> Search:
        """Insist on what must hold after so many disturbed runs, in each state. Raises Broken."""
        frontier = [start()]
        for level in range(depth):
            kinds = (APPLY, SYNC, RECOVER) if level else (APPLY, SYNC)
            frontier = [
                after for state in frontier for kind in kinds for after in self._runs(state, kind, freezes=not level)
            ]
        return self

    def _runs(self, state: State, kind: Kind, *, freezes: bool) -> Iterator[State]:
        """The new states that a run of that kind can leave, whatever goes wrong at whichever of its writes."""
        for at in itertools.count(1):
            troubles = [Trouble(at=at, how="dies-before"), Trouble(at=at, how="dies-after")]
            troubles += [Trouble(at=at, how="edit", index=index) for index in range(len(OBJECTS))]
            for trouble in troubles:
                world, process = self.go(state, kind, trouble)
                yield from self._judged(world, (*state.steps, f"{kind.name}: {trouble}"))
                if process.sent < at:
                    return
            for other in (RECOVER, SYNC) if freezes else ():
                for lands in itertools.count(0):
                    trouble = Trouble(at=at, how="freeze", other=other, lands=lands)
                    world, process = self.go(state, kind, trouble)
                    if process.followed < lands:
                        break
                    yield from self._judged(world, (*state.steps, f"{kind.name}: {trouble}"))

    def go(self, state: State, kind: Kind, trouble: Trouble | None = None) -> tuple[World, Process]:
        """One run from that state."""
        world = World(state)
        self.mutant(world)
        process = Process(world, kind, trouble)
        self.runs += 1
        in_turn = [patch.object(module, "in_parallel", _in_turn) for module in (execution, rollback)]
        with patch.object(time, "sleep", world.sleep), in_turn[0], in_turn[1]:
            process.run()
        return world, process

    def _judged(self, world: World, steps: tuple[str, ...]) -> Iterator[State]:
        """The state, if it is new and others may follow it."""
        state = replace(world.state(), steps=steps)
        if (key := state.key()) in self.seen:
            return
        self.seen.add(key)
        try:
            self._judge(world, state)
        except Broken as error:
            error.add_note("\n".join(steps))
            raise
        if world.intrusions:
            self.late += 1
        else:
            yield state

    def _judge(self, world: World, state: State) -> None:
        world.require_edits()
        if len(world.intrusions) > 1:
            raise Broken(f"two were inside: {world.intrusions}")
        # At rest: whoever is left recovers; after a late write, the next sync puts it right.
        rested, _ = self.go(state, SYNC if world.intrusions else RECOVER)
        rested.require_edits()
        if rested.maps.objects:
            raise Broken(f"a journal is left: {sorted(rested.maps.objects)}")
        rested.intrusions = world.intrusions
        if rested.rests and not rested.at_rest():
            raise Broken(f"half of it: {sorted(map(str, rested.cluster.objects))}")
