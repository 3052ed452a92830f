"""Bad input gets one clear error that says what to do, the right exit code, no traceback, and changes nothing."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from renderer import snapshot
from renderer.errors import ExitCode
from tests.support.insights import Fault, InsightsStandIn
from tests.support.policies import answer, cluster_policy, desired
from tests.support.programs import CLUSTER, Programs

RENDER = ("insights-renderer", "render", "--out", "out")


def kubeconfig(directory: Path, server: str, user: str = "{token: t}") -> str:
    path = directory / "kubeconfig"
    path.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n"
        f"clusters: [{{name: k, cluster: {{server: '{server}', insecure-skip-tls-verify: true}}}}]\n"
        f"users: [{{name: u, user: {user}}}]\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n"
    )
    return str(path)


def write_snapshot(directory: Path) -> Path:
    files = snapshot.render_files(desired(cluster_policy()), organization="acme", cluster="prod")
    snapshot.write(directory / "snapshot", files)
    return directory / "snapshot"


def check(done: subprocess.CompletedProcess[str], code: ExitCode, *said: str) -> None:
    assert done.returncode == code, done.stderr
    for words in said:
        assert words in done.stderr
    assert done.stderr.count("Error:") == 1


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (Fault.UNAUTHORIZED, ExitCode.NOT_PERMITTED, "FAIRWINDS_TOKEN"),
        (Fault.FORBIDDEN, ExitCode.NOT_PERMITTED, "FAIRWINDS_TOKEN"),
        (Fault.NOT_FOUND, ExitCode.CONFIGURATION, "FAIRWINDS_ORG"),
        (Fault.HTML_PAGE, ExitCode.UNAVAILABLE, "login page"),
        (Fault.REDIRECT, ExitCode.UNAVAILABLE, "redirect"),
    ],
)
def test_insights_says_no(
    offline: Programs, insights: InsightsStandIn, fault: Fault, code: ExitCode, said: str
) -> None:
    insights.publish(CLUSTER, answer(cluster_policy()))
    insights.fail(fault, times=10)
    check(offline.run(*RENDER), code, said)
    assert not (offline.directory / "out").exists()


@pytest.mark.parametrize("fault", [Fault.TRUNCATED, Fault.RESET, Fault.SERVER_ERROR, Fault.TOO_MANY_REQUESTS])
def test_a_passing_failure_is_tried_again(offline: Programs, insights: InsightsStandIn, fault: Fault) -> None:
    insights.publish(CLUSTER, answer(cluster_policy()))
    insights.fail(fault, times=1)
    done = offline.run(*RENDER)
    assert done.returncode == 0, done.stderr
    assert len(snapshot.read(offline.directory / "out").policies) == 1


def test_settings_that_are_missing_or_wrong_name_the_variable_and_what_is_accepted(offline: Programs) -> None:
    check(offline.without("FAIRWINDS_TOKEN").run(*RENDER), ExitCode.CONFIGURATION, "FAIRWINDS_TOKEN")
    check(offline.without("FAIRWINDS_ORG").run(*RENDER), ExitCode.CONFIGURATION, "FAIRWINDS_ORG")
    check(offline.with_(LOG_LEVEL="loud").run(*RENDER), ExitCode.CONFIGURATION, "LOG_LEVEL", "loud", "debug")
    check(
        offline.with_(FAIRWINDS_INSIGHTS_HOST="http://insights.example").run(*RENDER),
        ExitCode.CONFIGURATION,
        "FAIRWINDS_INSIGHTS_HOST",
        "--insecure-http",
    )
    sync = ("insights-applier", "sync")
    check(offline.with_(LOCK_TIMEOUT="30").run(*sync), ExitCode.CONFIGURATION, "LOCK_TIMEOUT", "'30'", "15m")
    check(offline.with_(DRY_RUN="perhaps").run(*sync), ExitCode.CONFIGURATION, "DRY_RUN", "perhaps")
    check(
        offline.with_(JOB_TYPE="trivy").run(*sync), ExitCode.CONFIGURATION, "JOB_TYPE", "trivy", "kyverno-policy-sync"
    )
    check(offline.run(*sync, "--lock-timeout", "soon"), ExitCode.USAGE, "--lock-timeout", "soon")


def test_wrong_usage(offline: Programs) -> None:
    check(offline.run("insights-renderer", "render"), ExitCode.USAGE, "--out")
    check(offline.run("insights-applier", "plan"), ExitCode.USAGE, "DIR")
    check(offline.run("insights-applier", "plane"), ExitCode.USAGE, "plan")
    assert offline.run("insights-applier").returncode == ExitCode.USAGE
    for limit in ("many", "101%", "-1", ""):
        check(offline.run("insights-applier", "plan", "out", f"--max-delete={limit}"), ExitCode.USAGE, "--max-delete")
    elsewhere = offline.with_(INSIGHTS_MAX_DELETE="many")
    check(elsewhere.run("insights-applier", "plan", "out"), ExitCode.CONFIGURATION, "INSIGHTS_MAX_DELETE", "25%")


def test_flags_come_before_the_environment_and_that_before_the_file(
    offline: Programs, insights: InsightsStandIn
) -> None:
    insights.publish(CLUSTER, answer(cluster_policy()))
    (offline.directory / "config.yaml").write_text("organization: other\ncluster: other\nlog-level: error\n")
    bare = offline.without("FAIRWINDS_ORG")
    check(bare.run(*RENDER, "--config", "config.yaml"), ExitCode.CONFIGURATION, "'other'")
    assert bare.run(*RENDER, "--config", "config.yaml", "--organization", "acme").returncode == 0
    (offline.directory / "config.yaml").write_text("organisation: acme\n")
    check(bare.run(*RENDER, "--config", "config.yaml"), ExitCode.CONFIGURATION, "organisation", "organization")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("diff: [1]", "diff"),
        ("exit-zero: {a: b}", "exit-zero"),
        ("kubeconfig: {a: b}", "kubeconfig"),
        ("only: {a: b}", "only"),
        ("only: [[ClusterPolicy/a]]", "only"),
    ],
)
def test_a_setting_of_the_wrong_shape_in_the_file_is_named(offline: Programs, text: str, told: str) -> None:
    (offline.directory / "config.yaml").write_text(text)
    done = offline.run("insights-applier", "plan", "snapshot", "--config", "config.yaml")
    check(done, ExitCode.CONFIGURATION, "config.yaml", f" {told}, which takes one value")


def test_the_token_may_come_from_a_file_and_never_from_a_flag(offline: Programs, insights: InsightsStandIn) -> None:
    insights.publish(CLUSTER, answer(cluster_policy()))
    (offline.directory / "token").write_text(offline.environment["FAIRWINDS_TOKEN"] + "\n")
    bare = offline.without("FAIRWINDS_TOKEN")
    assert bare.run(*RENDER, "--token-file", "token").returncode == 0
    check(bare.run(*RENDER, "--token-file", "missing"), ExitCode.CONFIGURATION, "missing")
    check(bare.run(*RENDER, "--token", "t"), ExitCode.USAGE, "--token")


def test_a_broken_document_writes_nothing_and_keeps_the_old_snapshot(
    offline: Programs, insights: InsightsStandIn
) -> None:
    insights.publish(CLUSTER, answer(cluster_policy()))
    assert offline.run(*RENDER).returncode == 0
    insights.publish(CLUSTER, answer(cluster_policy("other")) + "---\nkind: ClusterPolicy\n---\na: [\n")
    check(offline.run(*RENDER), ExitCode.INPUT, "document 2", "document 3", "nothing was written")
    assert [policy.identity.name for policy in snapshot.read(offline.directory / "out").policies] == ["require-team"]


def test_an_empty_answer_does_not_empty_a_snapshot(offline: Programs, insights: InsightsStandIn) -> None:
    insights.publish(CLUSTER, answer(cluster_policy()))
    assert offline.run(*RENDER).returncode == 0
    insights.publish(CLUSTER, "")
    check(offline.run(*RENDER), ExitCode.EMPTY_SET, "--allow-empty")
    assert len(snapshot.read(offline.directory / "out").policies) == 1
    assert offline.run(*RENDER, "--allow-empty").returncode == 0
    assert len(snapshot.read(offline.directory / "out").policies) == 0


def test_a_saved_answer_is_read_from_a_file_or_a_pipe(offline: Programs) -> None:
    assert offline.run(*RENDER, "--from", "-", stdin=answer(cluster_policy())).returncode == 0
    check(offline.run(*RENDER, "--from", "missing.yaml"), ExitCode.INPUT, "missing.yaml")
    (offline.directory / "cut.yaml").write_text(answer(cluster_policy())[:-40])
    done = offline.without("FAIRWINDS_ORG").run(*RENDER, "--from", "cut.yaml")
    check(done, ExitCode.CONFIGURATION, "FAIRWINDS_ORG")


def test_a_place_that_cannot_be_written(offline: Programs, insights: InsightsStandIn) -> None:
    insights.publish(CLUSTER, answer(cluster_policy()))
    check(
        offline.run("insights-renderer", "render", "--out", "/proc/here"), ExitCode.CONFIGURATION, "/proc/here", "--out"
    )


def test_no_cluster(offline: Programs) -> None:
    plan = ("insights-applier", "plan", str(write_snapshot(offline.directory)))
    check(offline.run(*plan), ExitCode.CONFIGURATION, "No cluster is configured", "KUBECONFIG")
    check(offline.run(*plan, "--kubeconfig", "missing"), ExitCode.CONFIGURATION, "missing")
    (offline.directory / "broken").write_text("a: [")
    check(offline.run(*plan, "--kubeconfig", "broken"), ExitCode.CONFIGURATION, "kubeconfig")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"https://127.0.0.1:{unused.getsockname()[1]}"
        down = offline.with_(KUBECONFIG=kubeconfig(offline.directory, address))
        check(down.run(*plan), ExitCode.UNAVAILABLE, address, "can't be reached")
        check(down.run(*plan, "--context", "other"), ExitCode.CONFIGURATION, "other")


def test_something_that_is_no_cluster(offline: Programs, insights: InsightsStandIn) -> None:
    plan = ("insights-applier", "plan", str(write_snapshot(offline.directory)))
    other = offline.with_(KUBECONFIG=kubeconfig(offline.directory, insights.url))
    done = other.run(*plan)
    assert done.returncode in (ExitCode.UNAVAILABLE, ExitCode.NOT_PERMITTED)


def test_a_token_that_fits_in_no_header_is_refused_without_being_shown(offline: Programs) -> None:
    plan = ("insights-applier", "plan", str(write_snapshot(offline.directory)))
    for user in ('{token: "sekrit\\nA"}', '{token: "sekritä"}'):
        broken = offline.with_(KUBECONFIG=kubeconfig(offline.directory, "https://127.0.0.1:1", user))
        for level in ("info", "debug"):
            done = broken.with_(LOG_LEVEL=level).run(*plan)
            check(done, ExitCode.CONFIGURATION, "token holds")
            assert "sekrit" not in done.stdout + done.stderr


def test_a_server_that_is_no_url(offline: Programs) -> None:
    plan = ("insights-applier", "plan", str(write_snapshot(offline.directory)))
    for server in ("127.0.0.1:6443", ""):
        broken = offline.with_(KUBECONFIG=kubeconfig(offline.directory, server))
        check(broken.run(*plan), ExitCode.CONFIGURATION, "https://")


def test_a_password_in_the_servers_address_is_refused_without_being_shown(offline: Programs) -> None:
    plan = ("insights-applier", "plan", str(write_snapshot(offline.directory)))
    for server in ("https://me:sekrit@127.0.0.1:1", "me:sekrit@127.0.0.1:1"):
        broken = offline.with_(KUBECONFIG=kubeconfig(offline.directory, server))
        done = broken.run(*plan)
        check(done, ExitCode.CONFIGURATION, "password")
        assert "sekrit" not in done.stdout + done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_change_nothing_about_the_work(
    offline: Programs, insights: InsightsStandIn, closed: str
) -> None:
    insights.publish(CLUSTER, answer(cluster_policy()))
    done = subprocess.run(
        ["/bin/sh", "-c", f'"$0" -m renderer render --out out {closed}', sys.executable],
        env=offline.environment,
        cwd=offline.directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(snapshot.read(offline.directory / "out").policies) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, "{}"), (200, "[]"), (200, '"x"'), (200, ""), (200, '{"groups": null}'), (200, "<html>"),
        (302, ""), (400, "nope"), (404, "nope"), (410, "nope"),
    ],
)  # fmt: skip
def test_a_server_that_is_no_kubernetes(offline: Programs, status: int, body: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    plan = ("insights-applier", "plan", str(write_snapshot(offline.directory)))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_port}"
            done = offline.with_(KUBECONFIG=kubeconfig(offline.directory, address)).run(*plan)
        finally:
            server.shutdown()
            thread.join()
    check(done, ExitCode.UNAVAILABLE, address)


def test_a_credentials_plugin_that_fails_is_named(offline: Programs) -> None:
    plan = ("insights-applier", "plan", str(write_snapshot(offline.directory)))
    user = "{exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/false, interactiveMode: Never}}"
    failing = offline.with_(KUBECONFIG=kubeconfig(offline.directory, "https://127.0.0.1:1", user))
    check(failing.run(*plan), ExitCode.CONFIGURATION, "credentials plugin")


def test_a_snapshot_that_was_edited_is_refused(offline: Programs) -> None:
    directory = write_snapshot(offline.directory)
    check(offline.run("insights-applier", "plan", "nowhere"), ExitCode.INPUT, "nowhere", "insights-renderer render")
    (directory / "clusterpolicies.kyverno.io" / "require-team.yaml").write_text("a: 1\n")
    for command in ("plan", "validate", "apply"):
        check(offline.run("insights-applier", command, str(directory)), ExitCode.INPUT, "was edited or truncated")


def test_a_failed_sync_ends_with_its_summary(offline: Programs, insights: InsightsStandIn) -> None:
    import json

    insights.fail(Fault.UNAUTHORIZED, times=10)
    done = offline.run("insights-applier", "sync")
    assert done.returncode == ExitCode.NOT_PERMITTED
    line = json.loads(done.stdout.splitlines()[-1])
    assert (line["level"], line["msg"], line["success"]) == ("error", "Policy sync failed", False)
    assert line["summary"] == "Applied 0, Updated 0, Removed 0, Failed 0"
    assert "FAIRWINDS_TOKEN" in line["error"]


def test_output_that_nobody_reads_and_a_full_disk(offline: Programs, insights: InsightsStandIn) -> None:
    insights.publish(CLUSTER, answer(*(cluster_policy(f"p{number}") for number in range(50))))
    with offline.start(*RENDER) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr.read() == ""
    assert len(snapshot.read(offline.directory / "out").policies) == 50
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            ["/bin/sh", "-c", 'exec "$0" -m renderer render --out other', sys.executable],
            env=offline.environment,
            cwd=offline.directory,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert "No space left" in done.stderr
    assert done.returncode == ExitCode.CONFIGURATION
    assert len(snapshot.read(offline.directory / "other").policies) == 50


def test_help_and_version(offline: Programs) -> None:
    for program in ("insights-renderer", "insights-applier"):
        assert "Commands:" in offline.run(program, "--help").stdout
    for command in ("plan", "validate", "apply", "sync"):
        shown = offline.run("insights-applier", command, "--help").stdout
        assert "\n  Example" in shown
        assert "LOG_LEVEL" in shown
