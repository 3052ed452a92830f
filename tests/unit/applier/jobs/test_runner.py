"""The runner in a simulated world, one hardship at a time: who waits for whom, and what it does when asked to stop."""

from __future__ import annotations

from typing import Final

import pytest
import structlog

from applier.jobs.record import Entry
from applier.jobs.runner import Runner
from renderer.http import PassingError
from renderer.on_demand import Claim, JobStatus
from renderer.report_types import REPORT_TYPES
from tests.support.jobs_world import Fault, Nobody, SimulatedInsights, World

DONE: Final = ["running", "completed"]


def work(world: World, runner: Runner, turns: int) -> None:
    for _ in range(turns):
        runner.turn()
        world.pass_time()


def schedule_runs(world: World, report_type: str) -> None:
    """The CronJob's own schedule has a Job running, which does not end."""
    name = f"{report_type}-29000000"
    world.cron_jobs[report_type]["status"] = {"active": [{"name": name, "uid": name}]}
    owner = [{"kind": "CronJob", "name": report_type, "controller": True}]
    metadata = {"name": name, "uid": name, "ownerReferences": owner}
    world.live[name] = {"metadata": metadata, "spec": {}, "status": {"active": 1}, "held": True}


class Recorder(Nobody):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.failures: dict[int, str] = {}
        self.reached: list[tuple[bool, bool]] = []

    def turned(self, *, leads: bool, reached_insights: bool, reached_cluster: bool, waiting: int, running: int) -> None:  # noqa: ARG002 - the port's
        self.reached.append((reached_insights, reached_cluster))

    def finished(self, entry: Entry) -> None:
        if entry.outcome == "failed":
            self.failures[entry.id] = entry.remark


def test_types_that_their_schedules_run_give_their_places_to_others() -> None:
    world = World()
    for report_type in ("trivy", "pluto"):
        schedule_runs(world, report_type)
        world.enqueue(report_type)
    others = [world.enqueue("kyverno-policy-sync"), world.enqueue("kyverno-policy-sync")]
    runner = world.runner(most=2)
    work(world, runner, 12)
    assert [world.told[job_id] for job_id in others] == [DONE, DONE]
    assert [world.told[job_id] for job_id in (1, 2)] == [[], []]
    for report_type in ("trivy", "pluto"):
        world.end(f"{report_type}-29000000", "completed")
    work(world, runner, 3)
    assert [world.told[job_id] for job_id in (1, 2)] == [DONE, DONE]
    assert world.most_of_a_type == 1


def test_a_status_that_insights_never_takes_holds_up_no_other_and_is_no_outage() -> None:
    world, recorder = World(), Recorder()
    deaf, heard = world.enqueue("trivy"), world.enqueue("polaris")
    world.deaf_to = {deaf}
    work(world, world.runner(observer=recorder), 10)
    assert (world.told[deaf], world.told[heard]) == ([], DONE)
    assert recorder.reached == [(True, True)] * 10
    world.deaf_to = set()
    work(world, world.runner(), 10)
    assert world.told[deaf][-1:] == ["completed"]


def test_when_neither_claim_nor_report_is_answered_insights_is_away() -> None:
    world, recorder = World(), Recorder()
    job_id = world.enqueue("trivy")
    runner = world.runner(most=1, observer=recorder)
    work(world, runner, 1)
    world.live[f"trivy-on-demand-{job_id}"]["held"] = True  # its only place is taken: nothing is claimed
    world.deaf_to = {job_id}
    work(world, runner, 2)
    assert recorder.reached == [(True, True), (False, True), (False, True)]


def test_the_same_job_twice_in_one_claim_is_one() -> None:
    world = World()
    job_id = world.enqueue("trivy")
    world.waiting *= 2
    with structlog.testing.capture_logs() as logged:
        work(world, world.runner(), 5)
    assert [line["id"] for line in logged if line["event"] == "Job claimed"] == [job_id]
    assert world.told[job_id] == DONE
    assert world.created == [f"trivy-on-demand-{job_id}"]


def test_a_thousand_jobs_in_one_claim_are_kept_and_run_one_of_a_type_at_a_time() -> None:
    world = World()
    world.generous = 1_000
    types = list(REPORT_TYPES)
    for number in range(world.generous + 1):
        world.enqueue(types[number % len(types)], outcome="failed" if number % 7 == 0 else "completed")
    work(world, world.runner(most=17), 7)  # the first is done in the third turn, and so on
    ends: list[JobStatus] = ["failed" if number % 7 == 0 else "completed" for number in range(2 * 17)]
    assert [world.told[number + 1] for number in range(2 * 17)] == [["running", end] for end in ends]
    assert world.most_of_a_type == 1
    assert [entry.id for entry in world.record().entries] == list(range(2 * 17 + 1, 1_001))
    assert len(world.waiting) == 1  # no more are claimed while so many wait


@pytest.mark.parametrize("letter", ["a", "ä", "漢"])
def test_options_that_no_record_holds_fail_their_job_and_no_other(letter: str) -> None:
    world, recorder = World(), Recorder()
    large = world.enqueue("trivy", images=letter * 1_100_000)
    small = world.enqueue("polaris", images=letter)
    work(world, world.runner(observer=recorder), 5)
    assert (world.told[large], world.told[small]) == (["failed"], DONE)
    assert recorder.failures == {large: "Its options are too large to be kept."}


def test_many_options_that_no_record_holds_together_fail_as_few_as_need_be() -> None:
    world, recorder = World(), Recorder()
    world.generous = 120
    for _ in range(world.generous):
        world.enqueue("trivy", images="漢" * 5_000)
    work(world, world.runner(observer=recorder), 2)
    assert 60 <= len(recorder.failures) <= 64  # 15 kB each, of 900 kB
    assert len(world.record().entries) == 120 - len(recorder.failures)


def test_a_job_that_somebody_else_made_with_its_name_is_not_taken_for_its_own() -> None:
    clean = World()
    clean.enqueue("trivy")
    work(clean, clean.runner(), 1)
    # Whether its Job was made is not known, and there is one of its name.
    world, recorder = World(fault=Fault.REFUSED, fault_at=clean.calls.index("create_job") + 1), Recorder()
    job_id = world.enqueue("trivy")
    name = f"trivy-on-demand-{job_id}"
    complete = {"conditions": [{"type": "Complete", "status": "True"}], "succeeded": 1}
    metadata = {"name": name, "uid": "theirs", "ownerReferences": [{"name": "theirs"}]}
    world.live[name] = {"metadata": metadata, "spec": {}, "status": complete, "held": True}
    work(world, world.runner(observer=recorder), 4)
    assert world.told[job_id] == ["failed"]
    assert recorder.failures == {job_id: f"Another Job has its name already: {name}."}


def test_jobs_that_run_are_looked_at_long_before_their_ttl_is_over_however_rarely_jobs_are_claimed() -> None:
    world = World()
    job_id = world.enqueue("trivy")
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        world.pass_time(seconds)

    runner = world.runner(poll_seconds=3600)
    runner.run(stopped=lambda: len(waits) == 4, wait=wait)
    assert world.told[job_id] == DONE
    assert waits == [150, 150, 3600, 3600]


class Throttling(SimulatedInsights):
    """Asks to be left alone for a year."""

    def claim(self, limit: int) -> Claim:  # noqa: ARG002 - the port's
        raise PassingError("Insights answered 429.", retry_after_seconds=365 * 86_400.0)


def test_a_server_that_asks_to_be_left_alone_is_asked_again_in_the_end() -> None:
    world, recorder = World(), Recorder()
    runner = world.runner(insights=Throttling(world), observer=recorder)
    work(world, runner, 61)  # of 15 s
    assert recorder.reached == [(False, True)] + [(True, True)] * 59 + [(False, True)]


class Timed(SimulatedInsights):
    """Keeps how long each report may take, and takes that long."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.world = world
        self.allowed: list[float] = []

    def report(self, job_id: int, status: JobStatus, *, seconds: float) -> None:  # noqa: ARG002 - the port's
        self.allowed.append(seconds)
        self.world.time += seconds
        raise PassingError("Insights did not answer in time.")


def test_at_the_end_it_waits_for_insights_no_longer_than_its_grace() -> None:
    world = World()
    for report_type in ("trivy", "polaris", "nova"):
        world.enqueue(report_type)
    insights = Timed(world)
    runner = world.runner(grace_seconds=10, insights=insights)
    work(world, runner, 2)
    asked = len(insights.allowed)
    before = world.time
    runner.close()
    assert insights.allowed[asked:] == [10]
    assert world.time - before == 10
    assert world.record().leader == ""


def test_asked_to_stop_in_a_turn_it_starts_and_tells_nothing_more() -> None:
    world = World()
    world.enqueue("trivy")
    world.enqueue("polaris")
    runner = world.runner()
    runner.turn(stopped=lambda: "create_job" in world.calls)
    assert len(world.created) == 1
    work(world, runner, 1)
    del world.calls[:]
    runner.turn(stopped=lambda: True)
    assert not {"claim", "report", "create_job"} & set(world.calls)


def test_at_the_end_a_cluster_that_answers_nobody_is_asked_now_and_then_only() -> None:
    world = World()
    world.enqueue("trivy")
    runner = world.runner(grace_seconds=10)
    work(world, runner, 1)
    world.is_down = True
    del world.calls[:]

    def wait(seconds: float) -> None:
        world.time += seconds

    runner.close(wait=wait)
    assert world.calls.count("write_record") == 10 / 0.5 + 1


class Going(SimulatedInsights):
    """The cluster goes away once jobs were claimed."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.world = world

    def claim(self, limit: int) -> Claim:
        claim = super().claim(limit)
        self.world.is_down = bool(claim.jobs)
        return claim


def test_a_claim_that_could_not_be_kept_is_given_back_at_the_end() -> None:
    world = World()
    lost = world.enqueue("polaris")
    runner = world.runner(grace_seconds=10, insights=Going(world))
    work(world, runner, 2)
    before = world.time

    def wait(seconds: float) -> None:
        world.time += seconds

    runner.close(wait=wait)
    assert world.told[lost] == ["failed"]
    assert world.time - before == 10
