"""What a reviewer reads of a commit, before they look at its diff."""

from __future__ import annotations

import subprocess
from copy import deepcopy

import pytest

from renderer.commit_message import SnapshotChange, commit_message, snapshot_change
from renderer.manifest.jsontypes import JsonObject
from tests.support.policies import admission_policy, cluster_policy, desired, exception, validating_policy


def enforcing(name: str = "require-team") -> JsonObject:
    body = deepcopy(cluster_policy(name))
    body["spec"]["validationFailureAction"] = "Enforce"
    return body


def change(before: list[JsonObject] | None, after: list[JsonObject], cluster: str = "prod") -> SnapshotChange:
    earlier = None if before is None else desired(*before)
    return snapshot_change(earlier, desired(*after), organization="acme", cluster=cluster, digest="0" * 64)


def trailers(message: str) -> list[str]:
    command = ["git", "interpret-trailers", "--parse"]
    done = subprocess.run(command, input=message, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("before", "after", "subject"),
    [
        (None, [cluster_policy()], "Add ClusterPolicy/require-team to acme/prod"),
        ([cluster_policy()], [enforcing()], "Change ClusterPolicy/require-team of acme/prod"),
        ([cluster_policy()], [], "Remove ClusterPolicy/require-team from acme/prod"),
        ([cluster_policy()], [validating_policy(), exception()], "Update policies of acme/prod: 2 added, 1 removed"),
        ([cluster_policy()], [cluster_policy()], "Update the snapshot of acme/prod"),
        (None, [cluster_policy("a" * 70)], "Update policies of acme/prod: 1 added"),
    ],
)
def test_the_subject_says_it_in_one_line(
    before: list[JsonObject] | None, after: list[JsonObject], subject: str
) -> None:
    message = commit_message([change(before, after)])
    assert message.splitlines()[:2] == [subject, ""]


def test_the_body_tells_what_enforces_and_what_no_longer_does() -> None:
    before = [
        cluster_policy("starts"),
        enforcing("stops"),
        enforcing("goes"),
        admission_policy(),
        cluster_policy("same"),
    ]
    after = [enforcing("starts"), cluster_policy("stops"), enforcing("new"), admission_policy(), cluster_policy("same")]
    sections = dict(_sections(commit_message([change(before, after)])))
    assert sections["Now enforces (2)"] == ["- ClusterPolicy/new", "- ClusterPolicy/starts"]
    assert sections["No longer enforces (2)"] == ["- ClusterPolicy/goes", "- ClusterPolicy/stops"]
    assert sections["Added (1)"][0].startswith("- ClusterPolicy/new:")
    assert "Deny" in " ".join(sections["Changed (2)"])
    assert "- ClusterPolicy/goes" in sections["Removed (1)"][0]
    assert "same" not in str(sections)


def test_what_weakens_a_policy_that_still_enforces_is_told() -> None:
    narrower = enforcing()
    narrower["spec"]["rules"][0]["exclude"] = {"any": [{"resources": {"namespaces": ["kube-system"]}}]}
    sections = dict(_sections(commit_message([change([enforcing()], [narrower])])))
    assert sections["Enforces less, or may (1)"] == ["- ClusterPolicy/require-team"]


def test_a_change_of_the_label_only_is_a_change_of_presentation() -> None:
    message = commit_message([change([cluster_policy()], [cluster_policy(labels={"team": "a"})])])
    assert "Changed (1)" in message
    assert "enforces (" not in message


def test_every_snapshot_has_its_trailers() -> None:
    changes = [change(None, [cluster_policy()], cluster) for cluster in ("one", "two")]
    assert trailers(commit_message(changes)) == [
        line
        for cluster in ("one", "two")
        for line in (
            "Insights-Organization: acme",
            f"Insights-Cluster: {cluster}",
            f"Insights-Snapshot: sha256:{'0' * 64}",
        )
    ]


def test_what_several_clusters_share_is_said_once() -> None:
    changes = [change(None, [cluster_policy()], f"c{number}") for number in range(40)]
    message = commit_message(changes)
    assert message.startswith("Update policies of 40 clusters: 40 added\n")
    assert message.count("- ClusterPolicy/require-team") == 1
    assert "acme/c4 and 35 more clusters)" in " ".join(message.split())


def test_a_fleet_of_a_thousand_is_told_in_a_message_that_can_be_read() -> None:
    changes = [change(None, [cluster_policy(f"only-in-{number}")], f"c{number}") for number in range(1000)]
    message = commit_message(changes)
    body = message.partition("\n\nInsights-Organization")[0]
    assert len(body.splitlines()) < 700
    assert "and 800 more, which the diff shows" in body
    assert len(trailers(message)) == 3000


def test_lines_are_no_wider_than_git_shows_well() -> None:
    after = [enforcing(f"policy-{number}") for number in range(30)]
    message = commit_message([change([cluster_policy("policy-1")], after)])
    assert max(len(line) for line in message.partition("\n\nInsights-")[0].splitlines()) <= 72


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mine", "Mine\n\nInsights-Organization: acme\n"),
        ("Mine\n\nWhy.\n\nTicket: 1\n\n", "Mine\n\nWhy.\n\nTicket: 1\nInsights-Organization: acme\n"),
        ("fix: mine\n", "fix: mine\n\nInsights-Organization: acme\n"),
    ],
)
def test_a_text_of_the_users_comes_before_the_trailers(text: str, expected: str) -> None:
    message = commit_message([change(None, [cluster_policy()])], text=text)
    assert message.startswith(expected)
    assert len([line for line in trailers(message) if line.startswith("Insights-")]) == 3


def test_names_can_neither_end_a_line_nor_control_a_terminal() -> None:
    strange = snapshot_change(
        None, desired(cluster_policy()), organization="a\x1b[31m\nSigned-off-by: x", cluster="c\r\n\nx", digest="0" * 64
    )
    message = commit_message([strange])
    assert "\x1b" not in message
    assert "\r" not in message
    assert not any(line.startswith("Signed-off-by") for line in message.splitlines())
    assert len(trailers(message)) == 3


def _sections(message: str) -> list[tuple[str, list[str]]]:
    paragraphs = message.split("\n\n")[1:-1]
    return [(lines[0].removesuffix(":"), lines[1:]) for lines in (text.splitlines() for text in paragraphs)]
