"""A fleet as users run it: many clusters from a real server, and whatever goes wrong with some of them."""

from __future__ import annotations

import itertools
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from renderer.errors import ExitCode
from renderer.fleet.run import UNREACHED_LIMIT
from tests.support.fleet import NAMES, SIZE, SOON_SECONDS, Fleet, at_request, tree
from tests.support.insights import Fault, InsightsStandIn, Request
from tests.support.policies import answer, cluster_policy
from tests.support.programs import ORGANIZATION, TOKEN, Programs

#: Runs a command silently, and prints its exit code and its ru_maxrss.
PEAK_OF = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def events(log: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.splitlines()]


def test_each_cluster_gets_its_own_policies_and_a_second_run_changes_nothing(fleet: Fleet) -> None:
    done = fleet.run()
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{SIZE} of {SIZE} clusters done ({SIZE} changed, 0 as they were), 0 failed.\n"
    for name in NAMES:
        assert fleet.names_at(name) == [f"of-{name}", "require-owner"]
    assert sorted(fleet.asked()) == NAMES
    assert sorted(str(event["cluster"]) for event in events(done.stderr)) == NAMES
    before = tree(fleet.out)
    again = fleet.run()
    assert again.stdout == f"{SIZE} of {SIZE} clusters done (0 changed, {SIZE} as they were), 0 failed.\n"
    assert tree(fleet.out) == before


def test_a_fleet_writes_what_render_writes(fleet: Fleet) -> None:
    fleet.write_list(NAMES[0])
    assert fleet.run().returncode == 0
    done = fleet.programs.with_(FAIRWINDS_CLUSTER=NAMES[0]).run("insights-renderer", "render", "--out", "one")
    assert done.returncode == 0, done.stderr
    assert tree(fleet.out / ORGANIZATION / NAMES[0]) == tree(fleet.programs.directory / "one")


def test_all_clusters_share_a_few_connections(fleet: Fleet) -> None:
    connections = itertools.count()
    accept = fleet.insights._server.get_request
    fleet.insights._server.get_request = lambda: (next(connections), accept())[1]  # type: ignore[method-assign]
    assert fleet.run("--concurrency", "12").returncode == 0
    assert next(connections) <= 12
    assert len(fleet.asked()) == SIZE


def test_one_clusters_failure_leaves_its_snapshot_and_stops_no_other(fleet: Fleet) -> None:
    gone, broken, empty, blocked, inside, linked, *good = NAMES
    assert fleet.run().returncode == 0
    kept = {name: tree(fleet.out / ORGANIZATION / name) for name in (broken, empty)}
    for name in NAMES:
        fleet.insights.publish(name, answer(cluster_policy("new")))
    fleet.insights.publish(broken, answer(cluster_policy("new")) + "---\nkind: ClusterPolicy\nnot yaml: [\n")
    fleet.insights.publish(empty, "")
    (fleet.out / "a-file").write_text("somebody else's")
    (fleet.out / "link").symlink_to(fleet.programs.directory)
    paths = {name: f"{ORGANIZATION}/{name}" for name in (broken, empty, *good)}
    fleet.write_list(
        **paths, **{"nobody-knows": "x", blocked: "a-file", inside: "a-file-too/inside", linked: "link/elsewhere"}
    )
    (fleet.out / "a-file-too").write_text("somebody else's")
    done = fleet.run()
    assert done.returncode == ExitCode.PARTLY_APPLIED, done.stderr
    rows = {line.split()[0].removeprefix("acme/"): line for line in done.stdout.splitlines() if line.startswith("acme")}
    said = {
        "nobody-knows": "answered 404",
        broken: "Insights: 1 error; nothing was written.",
        empty: "would lose every one",
        blocked: "it is not a directory",
        inside: "File exists",
        linked: "by a symbolic link",
    }
    assert rows.keys() == said.keys()
    for name, words in said.items():
        assert words in rows[name]
    assert "Insights:" in done.stdout.partition(rows[broken])[2].splitlines()[1]
    assert "--allow-empty" in done.stdout
    assert done.stdout.endswith(
        f"{len(good)} of {len(good) + 6} clusters done ({len(good)} changed, 0 as they were), 6 failed.\n"
    )
    assert {name: tree(fleet.out / ORGANIZATION / name) for name in kept} == kept
    assert [fleet.names_at(name) for name in good] == [["new"]] * len(good)
    assert (fleet.out / "a-file").read_text() == "somebody else's"
    assert not (fleet.programs.directory / "elsewhere").exists()
    assert f"out/{ORGANIZATION}/{gone} is of a cluster that clusters.yaml does not list" in done.stderr
    assert fleet.names_at(gone) == [f"of-{gone}", "require-owner"]


def test_an_empty_answer_is_allowed_on_request(fleet: Fleet) -> None:
    fleet.write_list(NAMES[0])
    assert fleet.run().returncode == 0
    fleet.insights.publish(NAMES[0], "")
    assert fleet.run().returncode == ExitCode.EMPTY_SET
    assert fleet.run("--allow-empty").returncode == 0
    assert fleet.names_at(NAMES[0]) == []


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault.UNAUTHORIZED, ExitCode.NOT_PERMITTED),
        (Fault.NOT_FOUND, ExitCode.CONFIGURATION),
    ],
)
def test_when_all_fail_alike_the_exit_code_is_that_of_one(fleet: Fleet, fault: Fault, code: ExitCode) -> None:
    fleet.insights.fail(fault, times=SIZE)
    done = fleet.run()
    assert done.returncode == code
    assert done.stdout.count(f"\n{ORGANIZATION}/") == SIZE
    assert done.stdout.endswith(f"0 of {SIZE} clusters done (0 changed, 0 as they were), {SIZE} failed.\n")
    assert not fleet.out.exists()


def test_where_insights_is_down_it_is_not_asked_for_every_cluster(fleet: Fleet) -> None:
    fleet.insights.fail(Fault.HTML_PAGE, times=10)
    assert fleet.run("--concurrency", "4").returncode == ExitCode.PARTLY_APPLIED
    assert len(fleet.asked()) == SIZE
    fleet.insights.fail(Fault.HTML_PAGE, times=SIZE)
    done = fleet.run("--concurrency", "4")
    assert done.returncode == ExitCode.UNAVAILABLE
    asked = len(fleet.asked()) - SIZE
    assert UNREACHED_LIMIT <= asked < UNREACHED_LIMIT + 4  # those that were under way
    assert done.stdout.count("Not asked for") == SIZE - asked


def test_what_may_pass_is_tried_again(fleet: Fleet) -> None:
    for fault in (Fault.RESET, Fault.TRUNCATED, Fault.SERVER_ERROR):
        fleet.insights.fail(fault)
    done = fleet.run()
    assert done.returncode == 0, done.stdout
    assert len(fleet.asked()) == SIZE + 3


@pytest.mark.parametrize("shards", [1, 3])
def test_the_pods_of_an_indexed_job_do_everything_once(fleet: Fleet, shards: int) -> None:
    for index in range(shards):
        pod = fleet.programs.with_(JOB_COMPLETION_INDEX=str(index), INSIGHTS_SHARDS=str(shards))
        done = pod.run(*fleet.command())
        assert done.returncode == 0, done.stderr
        assert "does not list" not in done.stderr
    assert sorted(fleet.asked()) == NAMES
    assert all(fleet.names_at(name) for name in NAMES)


def test_the_flag_comes_before_the_jobs_variables(fleet: Fleet) -> None:
    pod = fleet.programs.with_(JOB_COMPLETION_INDEX="9", INSIGHTS_SHARDS="3")
    assert pod.run(*fleet.command("--shard", "0/1")).returncode == 0
    assert sorted(fleet.asked()) == NAMES


@pytest.mark.parametrize(
    ("variables", "arguments", "code", "words"),
    [
        ({"JOB_COMPLETION_INDEX": "3", "INSIGHTS_SHARDS": "3"}, [], ExitCode.CONFIGURATION, "0 to 2"),
        ({"JOB_COMPLETION_INDEX": "1"}, [], ExitCode.CONFIGURATION, "INSIGHTS_SHARDS is not set"),
        ({}, ["--shard", "3/3"], ExitCode.USAGE, "'3/3'"),
        ({"INSIGHTS_SHARD": "3/3"}, [], ExitCode.CONFIGURATION, "'3/3'"),
        ({}, ["--concurrency", "0"], ExitCode.USAGE, "--concurrency"),
        ({"FAIRWINDS_TOKEN": ""}, [], ExitCode.CONFIGURATION, "FAIRWINDS_TOKEN"),
    ],
)
def test_a_bad_setting_is_named_and_nothing_is_asked(
    fleet: Fleet, variables: dict[str, str], arguments: list[str], code: ExitCode, words: str
) -> None:
    done = fleet.programs.with_(**variables).run(*fleet.command(*arguments))
    assert done.returncode == code
    assert words in done.stderr
    assert not fleet.asked()


def test_a_bad_list_is_told_whole_and_nothing_is_asked(fleet: Fleet) -> None:
    fleet.write_list(**{NAMES[0]: "..", NAMES[1]: "a", NAMES[2]: "a/b"})
    done = fleet.run()
    assert done.returncode == ExitCode.INPUT
    assert "clusters.yaml:1: path: '..'" in done.stderr
    assert "clusters.yaml:3: path: 'a/b' lies inside 'a'" in done.stderr
    assert not fleet.asked()


def test_a_shard_without_a_cluster_is_done(fleet: Fleet) -> None:
    fleet.write_list(NAMES[0])
    codes = [fleet.run("--shard", f"{index}/5").returncode for index in range(5)]
    assert codes == [0] * 5
    assert fleet.asked() == [NAMES[0]]


# Interrupted ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, ExitCode.INTERRUPTED, "Interrupted"),
        (signal.SIGTERM, ExitCode.TERMINATED, "Terminated"),
    ],
)
def test_a_signal_ends_it_soon_and_leaves_nothing_half_written(
    fleet: Fleet, number: signal.Signals, code: ExitCode, word: str
) -> None:
    reached = threading.Event()

    def stall() -> None:
        fleet.insights.fail(Fault.STALL, times=SIZE)
        reached.set()

    at_request(fleet, 20, stall)
    program = fleet.start("--concurrency", "6")
    assert reached.wait(SOON_SECONDS)
    os.killpg(program.pid, number)  # the whole group, as a terminal and `timeout` do
    stdout, stderr = program.communicate(timeout=SOON_SECONDS)
    assert program.returncode == code, stderr
    last = stderr.splitlines()[-2]
    done = int(last.removeprefix(f"Error: {word}: ").split()[0])
    assert last == f"Error: {word}: {done} of {SIZE} clusters done ({done} changed, 0 as they were), 0 failed."
    written = [name for name in NAMES if (fleet.out / ORGANIZATION / name).exists()]
    assert len(written) == done
    assert [fleet.names_at(name) for name in written] == [[f"of-{name}", "require-owner"] for name in written]
    assert not list(fleet.out.rglob(".*"))
    assert "Traceback" not in stdout + stderr


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # threads come and go
            found += map(int, (task / "children").read_text().split())
    return found


def test_killed_in_the_middle_its_processes_end_and_a_second_run_completes(fleet: Fleet) -> None:
    reached, proceed = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        proceed.wait(SOON_SECONDS)

    at_request(fleet, SIZE // 2, hold)
    program = fleet.start("--concurrency", "2", "--processes", "2")
    assert reached.wait(SOON_SECONDS)
    handles = [os.pidfd_open(child) for child in children(program.pid)]
    assert len(handles) >= 2
    program.kill()
    program.communicate()
    proceed.set()
    for handle in handles:
        ended, _, _ = select.select([handle], [], [], SOON_SECONDS)
        os.close(handle)
        assert ended, "a process outlived the program"
    done = fleet.run()
    assert done.returncode == 0, done.stdout
    for name in NAMES:
        assert fleet.names_at(name) == [f"of-{name}", "require-owner"]
    assert not list(fleet.out.rglob(".*"))


def test_two_at_once_into_one_directory_leave_whole_snapshots(fleet: Fleet) -> None:
    names = NAMES[:12]
    wanted = [[*(f"{side}{number:02}" for number in range(30)), "for-both"] for side in "ab"]
    answers = [answer(*map(cluster_policy, policies)) for policies in wanted]
    for name in names:
        turns = itertools.cycle(answers)
        fleet.insights._publish(name, lambda turns=turns: next(turns).encode())  # type: ignore[misc]
    fleet.write_list(*names)
    # Both have asked for a cluster before either gets its answer, so both write it at the same time.
    both = threading.Barrier(2, timeout=SOON_SECONDS)

    def wait_for_the_other(_request: Request) -> None:
        both.wait()

    fleet.insights._on_request = wait_for_the_other
    pair = [fleet.start("--concurrency", "1") for _ in range(2)]
    for program in pair:
        _, stderr = program.communicate(timeout=60)
        assert program.returncode == 0, stderr
    assert [name for name in names if fleet.names_at(name) not in wanted] == []
    assert not list(fleet.out.rglob(".*"))


# The machine ---------------------------------------------------------------------------------------------------------


def test_a_disk_that_takes_nothing_fails_each_cluster_and_keeps_what_was_there(fleet: Fleet) -> None:
    fleet.write_list(*NAMES[:6])
    assert fleet.run().returncode == 0
    before = tree(fleet.out)
    for name in NAMES[:5]:
        fleet.insights.publish(name, answer(cluster_policy("new")))
    command = fleet.programs._command(tuple(fleet.command()))
    done = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *command],
        env=fleet.programs.environment,
        cwd=fleet.programs.directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.PARTLY_APPLIED, done.stderr
    assert done.stdout.count("can't be written: File too large") == 5
    assert done.stdout.endswith("1 of 6 clusters done (0 changed, 1 as they were), 5 failed.\n")
    assert tree(fleet.out) == before


def test_a_place_where_nobody_may_write_fails_each_cluster(fleet: Fleet) -> None:
    fleet.write_list(*NAMES[:3])
    done = fleet.programs.run("insights-renderer", "fleet", "--clusters", "clusters.yaml", "--out", "/sys/kernel/fleet")
    assert done.returncode == ExitCode.CONFIGURATION
    assert done.stdout.count("can't be written") == 3


def test_memory_does_not_grow_with_the_number_of_clusters(offline: Programs) -> None:
    names = [f"c{number:03}" for number in range(400)]
    policies = answer(cluster_policy(message="x" * 60_000))

    def peak_kib(count: int) -> int:
        """The most memory that the largest of its processes had. A small process starts it: who starts counts too."""
        made.write_list(*names[:count])
        done = subprocess.run(
            [sys.executable, "-c", PEAK_OF, *made.programs._command(tuple(made.command()))],
            env=made.programs.environment,
            cwd=made.programs.directory,
            capture_output=True,
            text=True,
            check=True,
        )
        code, peak = map(int, done.stdout.split())
        assert code == 0
        return peak

    with InsightsStandIn(token=TOKEN, organization=ORGANIZATION, clusters=names) as insights:
        for name in names:
            insights.publish(name, policies)
        made = Fleet(programs=offline.with_(FAIRWINDS_INSIGHTS_HOST=insights.url), insights=insights)
        few = peak_kib(100)
        many = peak_kib(400)
    # Kept answers alone would be 18 MB more, two fifths of it all.
    assert many < few * 1.2


def test_people_see_a_bar_and_what_failed_above_it(fleet: Fleet) -> None:
    fleet.write_list(*NAMES[:5], unknown="unknown")
    ours, terminal = pty.openpty()
    program = fleet.start(stderr=terminal)
    os.close(terminal)
    shown = b""
    while True:
        try:
            block = os.read(ours, 4096)
        except OSError:  # the terminal is closed by all
            break
        if not block:
            break
        shown += block
    os.close(ours)
    stdout, _ = program.communicate()
    assert program.returncode == ExitCode.PARTLY_APPLIED
    text = shown.decode()
    assert "6/6" in text
    assert text.count("Cluster failed") == 1
    assert "Cluster changed" not in text
    assert "5 of 6 clusters done" in stdout


def test_it_runs_as_an_installed_script_too(fleet: Fleet) -> None:
    """The installed program is a script: what a process of it imports must not run it again."""
    script = fleet.programs.directory / "insights-renderer"
    script.write_text("import sys\nfrom renderer.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n")
    done = subprocess.run(
        [sys.executable, str(script), *fleet.command()[1:]],
        env=fleet.programs.environment,
        cwd=fleet.programs.directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("clusters done") == 1
