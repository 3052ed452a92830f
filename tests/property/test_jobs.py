"""On-demand jobs, whatever fails and whenever the runner dies: none lost, none run twice, each told as it ended."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from applier.jobs.runner import Runner
from renderer.on_demand import JobStatus
from renderer.report_types import REPORT_TYPES
from tests.support.jobs_world import POLL_SECONDS, Dead, Fault, World

TYPES = st.sampled_from(["trivy", "polaris", "kyverno-policy-sync"])
OUTCOMES: st.SearchStrategy[JobStatus] = st.sampled_from(["completed", "failed"])


def busy_world(*, fault: Fault = Fault.REFUSED, fault_at: int = 0) -> World:
    world = World(fault=fault, fault_at=fault_at)
    world.enqueue("trivy")
    world.enqueue("trivy", outcome="failed")
    world.enqueue("polaris", imagesToScan="a")
    world.enqueue("unheard-of")
    world.enqueue("kyverno-policy-sync", outcome="failed")
    return world


def check(world: World) -> None:
    """All are told as they ended, but for those whose claim nobody got to know of."""
    assert len(world.created) == len(set(world.created)), "a Job was made twice"
    assert world.most_of_a_type <= 1, "two of a type ran at once"
    assert not world.waiting
    for job_id, told in world.told.items():
        if job_id in world.lost:
            assert not told
            continue
        names = [name for name in world.created if name.endswith(f"-on-demand-{job_id}")]
        expected = world.ended[names[0]] if names else "failed"
        assert told[-1:] == [expected], f"job {job_id} was told {told}, and ended {expected}"
        assert set(told) <= {"running", expected}, f"job {job_id} was told {told}"
        assert "running" not in told[told.index(expected) :]
    assert not world.record().entries


def calls_without_faults() -> int:
    world = busy_world()
    world.work()
    return len(world.calls)


def test_without_faults_every_job_is_told_as_it_ends() -> None:
    world = busy_world()
    world.work()
    check(world)
    assert world.told == {
        1: ["running", "completed"],
        2: ["running", "failed"],
        3: ["running", "completed"],
        4: ["failed"],
        5: ["running", "failed"],
    }


@pytest.mark.parametrize("fault", Fault)
def test_at_any_call_nothing_is_lost_and_nothing_runs_twice(fault: Fault) -> None:
    for number in range(1, calls_without_faults() + 1):
        world = busy_world(fault=fault, fault_at=number)
        world.work()
        check(world)


@settings(max_examples=40)
@given(
    jobs=st.lists(st.tuples(TYPES, OUTCOMES), min_size=1, max_size=6),
    kills=st.lists(st.integers(0, 6), max_size=4),
    most=st.integers(1, 3),
)
def test_terminated_and_followed_at_any_turn(jobs: list[tuple[str, JobStatus]], kills: list[int], most: int) -> None:
    world = World()
    for report_type, outcome in jobs:
        world.enqueue(report_type, outcome=outcome)
    runner = world.runner(most=most)
    for turns in kills:
        _turn(world, runner, turns)
        runner.close()
        runner = world.runner(most=most)
    _turn(world, runner, 40)
    check(world)


@settings(max_examples=40)
@given(first=st.integers(1, 5), frozen=st.integers(1, 8), both=st.integers(1, 5))
def test_a_runner_that_was_frozen_does_no_harm(first: int, frozen: int, both: int) -> None:
    world = busy_world()
    old, new = world.runner(), world.runner()
    _turn(world, old, first)
    _turn(world, new, frozen)  # the old one is silent meanwhile
    for _ in range(both):
        old.turn()
        new.turn()
        world.pass_time()
    _turn(world, new, 60)
    check(world)


def test_no_type_holds_up_another() -> None:
    world = World()
    for _ in range(30):
        world.enqueue("trivy")
    last = world.enqueue("kyverno-policy-sync")
    runner = world.runner(most=2)
    for _ in range(12):
        runner.turn()
        for name, job in world.live.items():
            if name.startswith("trivy"):
                job["held"] = True
        world.pass_time()
    assert world.told[last] == ["running", "completed"]
    assert [name for name in world.created if name.startswith("trivy")] == ["trivy-on-demand-1"]


def test_claims_no_more_than_types_can_start() -> None:
    world = World()
    for _ in range(3):
        for name in REPORT_TYPES:
            world.enqueue(name)
    runner = world.runner(most=4)
    runner.turn()
    assert len(world.live) == 4
    assert len(world.waiting) == 3 * 17 - 4
    runner.turn()
    assert len(world.waiting) == 3 * 17 - 4


def _turn(world: World, runner: Runner, turns: int) -> None:
    for _ in range(turns):
        try:
            runner.turn()
        except Dead:
            return
        world.pass_time(POLL_SECONDS)
