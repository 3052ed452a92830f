"""`render --git` in a repository on this machine: the commit, and nothing but the commit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from renderer import snapshot
from renderer.errors import ExitCode
from tests.support.policies import cluster_policy, exception
from tests.support.repositories import OUT, Rendering, State, bare, begin, commit_file, git, left_over, run_git

LOCK = f"{OUT}/{snapshot.LOCK}"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return begin(tmp_path / "work")


def test_the_commit_holds_the_snapshot_and_says_what_it_does(rendering: Rendering, repository: Path) -> None:
    here = rendering.inside(repository)
    told = here.done()
    commit = git(repository, "rev-parse", "main")
    assert f"Committed {commit[:12]} on main." in told
    assert git(repository, "diff", "--name-status", "HEAD~1").splitlines() == [
        f"A\t{OUT}/clusterpolicies.kyverno.io/require-team.yaml",
        f"A\t{OUT}/{snapshot.KUSTOMIZATION}",
        f"A\t{LOCK}",
    ]
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "log", "-1", "--format=%an <%ae>") == "Robin <robin@example.com>"
    assert git(repository, "reflog", "-1", "--format=%gs") == "insights-renderer: " + git(
        repository, "log", "-1", "--format=%s"
    )
    read = snapshot.read(repository / OUT)
    trailers = git(repository, "log", "-1", "--format=%(trailers:only)")
    assert trailers.splitlines() == [
        "Insights-Organization: acme",
        "Insights-Cluster: prod",
        f"Insights-Snapshot: sha256:{read.digest}",
    ]

    here.wants({**cluster_policy(), "spec": cluster_policy()["spec"] | {"validationFailureAction": "Enforce"}})
    here.done()
    message = git(repository, "log", "-1", "--format=%B")
    assert message.splitlines()[0] == "Change ClusterPolicy/require-team of acme/prod"
    assert "Now enforces (1):\n- ClusterPolicy/require-team\n" in message
    assert left_over(rendering) == []


def test_without_a_change_there_is_no_commit(rendering: Rendering, repository: Path) -> None:
    here = rendering.inside(repository)
    here.done()
    before, reflog = State.of(repository), git(repository, "reflog", "--all")
    assert "Nothing to commit on main." in here.done()
    assert State.of(repository) == before
    assert git(repository, "reflog", "--all") == reflog


def test_what_else_is_staged_edited_or_new_stays_so_and_out_of_the_commit(
    rendering: Rendering, repository: Path
) -> None:
    commit_file(repository, f"{OUT}/NOTES.md", "a file of ours\n")
    commit_file(repository, "gone.txt", "old\n")
    (repository / "README.md").write_text("staged\n")
    git(repository, "add", "README.md")
    (repository / "README.md").write_text("edited after that\n")
    (repository / OUT / "NOTES.md").write_text("edited\n")
    (repository / "new.txt").write_text("untracked\n")
    git(repository, "rm", "-q", "gone.txt")
    status, staged = git(repository, "status", "--porcelain"), git(repository, "diff", "--cached")
    rendering.inside(repository).done()
    assert git(repository, "status", "--porcelain") == status
    assert git(repository, "diff", "--cached") == staged
    assert (repository / "README.md").read_text() == "edited after that\n"
    committed = git(repository, "show", "--name-status", "--format=", "HEAD").splitlines()
    assert [line.removeprefix(f"A\t{OUT}/") for line in committed] == [
        "clusterpolicies.kyverno.io/require-team.yaml",
        snapshot.KUSTOMIZATION,
        snapshot.LOCK,
    ]


@pytest.mark.parametrize("what", ["edited", "staged", "deleted", "untracked"])
def test_edits_inside_the_snapshot_are_refused_and_named(rendering: Rendering, repository: Path, what: str) -> None:
    here = rendering.inside(repository)
    name = f"{OUT}/clusterpolicies.kyverno.io/require-team.yaml"
    if what == "untracked":
        assert here.programs.run("insights-renderer", "render", "--out", OUT).returncode == 0
    else:
        here.done()
    if what == "deleted":
        (repository / name).unlink()
    elif what != "untracked":
        (repository / name).write_text("a: 1\n")
    if what == "staged":
        git(repository, "add", name)
    before = State.of(repository)
    here.wants(cluster_policy("other"))
    done = here.run()
    assert done.returncode == ExitCode.INPUT
    assert name in done.stderr
    assert State.of(repository) == before


def test_a_file_of_the_users_where_a_policy_is_to_go_is_not_overwritten(rendering: Rendering, repository: Path) -> None:
    mine = repository / OUT / "clusterpolicies.kyverno.io" / "require-team.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine\n")
    before = State.of(repository)
    done = rendering.inside(repository).run()
    assert done.returncode == ExitCode.INPUT
    assert "require-team.yaml: is not in git" in done.stderr
    assert State.of(repository) == before


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_the_first_commit_of_an_empty_repository(rendering: Rendering, tmp_path: Path, object_format: str) -> None:
    git(tmp_path, "init", "-q", "-b", "trunk", f"--object-format={object_format}", "empty")
    repository = tmp_path / "empty"
    rendering.inside(repository).done()
    assert git(repository, "rev-list", "--count", "trunk") == "1"
    assert git(repository, "status", "--porcelain") == ""
    rendering.wants(cluster_policy("other"))
    rendering.inside(repository).done()
    assert git(repository, "rev-list", "--count", "trunk") == "2"
    assert git(repository, "status", "--porcelain") == ""
    git(repository, "fsck", "--strict")


def test_in_a_linked_work_tree(rendering: Rendering, repository: Path, tmp_path: Path) -> None:
    git(repository, "worktree", "add", "-q", "-b", "side", str(tmp_path / "linked"))
    rendering.inside(tmp_path / "linked").done()
    assert git(repository, "rev-list", "--count", "main..side") == "1"
    assert git(tmp_path / "linked", "status", "--porcelain") == ""
    done = rendering.inside(repository).run("--branch", "side")
    assert done.returncode == ExitCode.CONFIGURATION
    assert "is checked out in" in done.stderr


def test_another_branch_leaves_the_work_tree_alone(rendering: Rendering, repository: Path) -> None:
    before = State.of(repository)
    here = rendering.inside(repository)
    here.done("--branch", "policies/prod")
    after = State.of(repository)
    assert (after.head, after.index, after.files) == (before.head, before.index, before.files)
    assert git(repository, "rev-list", "--count", "main..policies/prod") == "1"
    here.wants(cluster_policy(), exception())
    here.done("--branch", "policies/prod")
    assert git(repository, "rev-list", "--count", "main..policies/prod") == "2"
    assert git(repository, "ls-tree", "-r", "--name-only", "main") == "README.md"


def test_on_a_detached_head(rendering: Rendering, repository: Path) -> None:
    git(repository, "checkout", "-q", "--detach")
    here = rendering.inside(repository)
    here.done("--branch", "fresh")
    assert git(repository, "rev-parse", "HEAD") == git(repository, "rev-parse", "fresh")
    here.wants(cluster_policy("other"))
    here.done()
    assert git(repository, "rev-parse", "HEAD~1") == git(repository, "rev-parse", "fresh")
    assert git(repository, "status", "--porcelain") == ""


def test_a_directory_of_the_repository_by_its_root(rendering: Rendering, repository: Path, tmp_path: Path) -> None:
    rendering.done("--repo", str(repository))
    assert (repository / LOCK).exists()
    other = bare(tmp_path / "bare.git", repository)
    rendering.wants(cluster_policy("other"))
    rendering.done("--repo", str(other))
    assert git(other, "rev-list", "--count", "main") == "3"
    here = rendering.inside(repository)
    here.done(out=".")
    assert (repository / snapshot.LOCK).exists()
    assert git(repository, "status", "--porcelain") == ""


def test_the_environment_of_another_git_does_not_lead_elsewhere(
    rendering: Rendering, repository: Path, tmp_path: Path
) -> None:
    other = begin(tmp_path / "other")
    before = State.of(other)
    rendering.inside(repository).with_(
        GIT_DIR=str(other / ".git"),
        GIT_WORK_TREE=str(other),
        GIT_INDEX_FILE=str(other / ".git" / "index"),
        GIT_OBJECT_DIRECTORY=str(other / ".git" / "objects"),
        GIT_COMMON_DIR=str(other / ".git"),
        GIT_NAMESPACE="elsewhere",
        GIT_PREFIX="deep/",
        GIT_SHALLOW_FILE=str(other / "README.md"),
        GIT_QUARANTINE_PATH="x",
    ).done()
    assert State.of(other) == before
    assert git(repository, "rev-list", "--count", "main") == "2"
    git(repository, "fsck", "--strict")


def test_the_author_is_the_flags_or_gits_or_there_is_one_clear_error(rendering: Rendering, repository: Path) -> None:
    here = rendering.inside(repository)
    (here.programs.directory.parent / ".gitconfig").unlink()
    before = State.of(repository)
    done = here.run()
    assert done.returncode == ExitCode.CONFIGURATION
    for words in ("--author", "INSIGHTS_AUTHOR", "user.name"):
        assert words in done.stderr
    assert State.of(repository) == before
    assert here.run("--author", "nobody").returncode == ExitCode.CONFIGURATION
    here.done("--author", "Kim Ünal <kim@example.com>")
    assert git(repository, "log", "-1", "--format=%an <%ae> %cn <%ce>") == (
        "Kim Ünal <kim@example.com> Kim Ünal <kim@example.com>"
    )


def test_a_message_of_the_users_keeps_its_text_and_gets_the_trailers(
    rendering: Rendering, repository: Path, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("Take what Insights wants\n\nSee the ticket.\n\nTicket: 12\n")
    rendering.inside(repository).done("--message-file", "../text")
    message = git(repository, "log", "-1", "--format=%B")
    assert message.startswith(
        "Take what Insights wants\n\nSee the ticket.\n\nTicket: 12\nInsights-Organization: acme\n"
    )
    assert git(repository, "log", "-1", "--format=%(trailers:key=Ticket,valueonly)") == "12"


def test_commits_are_signed_where_git_is_so_configured(rendering: Rendering, repository: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=60)
    config = tmp_path / ".gitconfig"
    config.write_text(
        config.read_text() + f"[commit]\n\tgpgSign = true\n[gpg]\n\tformat = ssh\n[user]\n\tsigningKey = {key}\n"
    )
    here = rendering.inside(repository)
    here.done()
    (tmp_path / "signers").write_text(f"robin@example.com {key.with_suffix('.pub').read_text()}")
    verified = run_git(repository, "-c", f"gpg.ssh.allowedSignersFile={tmp_path / 'signers'}", "verify-commit", "HEAD")
    assert verified.returncode == 0, verified.stderr

    key.unlink()
    before = State.of(repository)
    here.wants(cluster_policy("other"))
    done = here.run()
    assert done.returncode == ExitCode.CONFIGURATION
    assert "could not be signed" in done.stderr
    assert State.of(repository) == before


def test_settings_that_hold_for_a_directory_only_are_the_users_too(
    rendering: Rendering, repository: Path, tmp_path: Path
) -> None:
    (tmp_path / "work-identity").write_text("[user]\n\temail = robin@work.example\n")
    config = tmp_path / ".gitconfig"
    config.write_text(config.read_text() + f'[includeIf "gitdir:{repository}/"]\n\tpath = work-identity\n')
    rendering.inside(repository).done()
    assert git(repository, "log", "-1", "--format=%ae") == "robin@work.example"


def test_options_of_git_without_git_are_told(rendering: Rendering, repository: Path) -> None:
    done = rendering.inside(repository).programs.run("insights-renderer", "render", "--out", OUT, "--push")
    assert done.returncode == ExitCode.CONFIGURATION
    assert "--git" in done.stderr
