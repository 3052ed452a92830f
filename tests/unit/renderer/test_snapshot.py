"""The snapshot on disk: the same bytes for the same policies, and no reader takes one that is not whole."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from renderer import snapshot
from renderer.directory import Changed, replace_files
from renderer.errors import ConfigurationError, SnapshotError
from renderer.manifest.jsontypes import JsonObject
from tests.support.policies import cluster_policy, desired, exception, validating_policy

POLICIES = (cluster_policy("one"), validating_policy("two"), exception("three", namespace="team-a"))
ONE = "clusterpolicies.kyverno.io/one.yaml"


def write(directory: Path, *bodies: JsonObject) -> Changed:
    files = snapshot.render_files(desired(*bodies), organization="acme", cluster="prod")
    return snapshot.write(directory, files)


def tree(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write(tmp_path / "s", *POLICIES)
    found = snapshot.read(tmp_path / "s")
    assert list(found.policies) == list(desired(*POLICIES))
    assert (found.organization, found.cluster) == ("acme", "prod")
    assert tree(tmp_path / "s").keys() == {
        ONE,
        "validatingpolicies.policies.kyverno.io/two.yaml",
        "policyexceptions.policies.kyverno.io/team-a/three.yaml",
        "kustomization.yaml",
        "snapshot.lock",
    }


def test_the_same_policies_in_any_order_give_the_same_bytes_and_no_write(tmp_path: Path) -> None:
    write(tmp_path / "s", *POLICIES)
    inode, before = (tmp_path / "s").stat().st_ino, tree(tmp_path / "s")
    changed = write(tmp_path / "s", *reversed(POLICIES))
    assert not changed
    assert (tmp_path / "s").stat().st_ino == inode
    assert tree(tmp_path / "s") == before


def test_its_own_stale_files_go_and_files_of_others_stay(tmp_path: Path) -> None:
    write(tmp_path / "s", *POLICIES)
    (tmp_path / "s" / "OWNERS").write_text("us")
    (tmp_path / "s" / "notes").mkdir()
    (tmp_path / "s" / "notes" / "link").symlink_to("../OWNERS")
    changed = write(tmp_path / "s", cluster_policy("one", message="Other."))
    assert changed.changed == (ONE, "kustomization.yaml", "snapshot.lock")
    assert changed.removed == (
        "policyexceptions.policies.kyverno.io/team-a/three.yaml",
        "validatingpolicies.policies.kyverno.io/two.yaml",
    )
    assert (tmp_path / "s" / "OWNERS").read_text() == "us"
    assert (tmp_path / "s" / "notes" / "link").is_symlink()
    assert not (tmp_path / "s" / "policyexceptions.policies.kyverno.io").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    snapshot.read(tmp_path / "s")


def test_what_another_render_wrote_just_before_is_replaced_whole(tmp_path: Path) -> None:
    write(tmp_path / "s", cluster_policy("one"))
    ours = snapshot.render_files(desired(cluster_policy("ours")), organization="acme", cluster="prod").contents
    asked = itertools.count()

    def own() -> frozenset[str]:
        paths = snapshot.own_paths(tmp_path / "s")
        if next(asked) == 0:  # between our first look at the directory and our turn to write
            write(tmp_path / "s", cluster_policy("one"), cluster_policy("theirs"))
        return paths

    changed = replace_files(tmp_path / "s", ours, own=own, last="snapshot.lock")
    assert [policy.identity.name for policy in snapshot.read(tmp_path / "s").policies] == ["ours"]
    assert changed.removed == (ONE, "clusterpolicies.kyverno.io/theirs.yaml")


@pytest.mark.parametrize("in_place", [False, True])
def test_both_ways_of_writing_give_the_same_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_place: bool
) -> None:
    target = tmp_path / "s"
    write(target, *POLICIES)
    (target / "OWNERS").write_text("us")
    inode = target.stat().st_ino
    if in_place:
        monkeypatch.chdir(target)  # the caller's own working directory is not exchanged under its feet
    write(target, cluster_policy("one"), cluster_policy("four"))
    assert (target.stat().st_ino == inode) is in_place
    assert tree(target).keys() == {
        ONE,
        "clusterpolicies.kyverno.io/four.yaml",
        "OWNERS",
        "kustomization.yaml",
        "snapshot.lock",
    }
    assert len(snapshot.read(target).policies) == 2
    assert sorted(path.name for path in target.iterdir()) == [
        "OWNERS", "clusterpolicies.kyverno.io", "kustomization.yaml", "snapshot.lock",
    ]  # fmt: skip


def edit_lock(change: Callable[[JsonObject], object]) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        lock = json.loads((directory / "snapshot.lock").read_text())
        change(lock)
        (directory / "snapshot.lock").write_text(json.dumps(lock))

    return edit


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda d: (d / ONE).write_text((d / ONE).read_text()[:-20]), f"{ONE}: was edited or truncated"),
        (lambda d: (d / ONE).unlink(), f"{ONE}: is missing"),
        (lambda d: (d / "extra.yaml").write_text("a: 1\n"), "extra.yaml: is not listed"),
        (lambda d: (d / "deep").mkdir() or (d / "deep/x.JSON").write_text("{}"), "deep/x.JSON: is not listed"),
        (
            lambda d: (d / "kustomization.yaml").write_text("resources: []\n"),
            "kustomization.yaml: is missing or was edited",
        ),
        (lambda d: (d / "kustomization.yaml").unlink(), "kustomization.yaml: is missing or was edited"),
        (lambda d: (d / "snapshot.lock").unlink(), "holds no snapshot.lock"),
        (lambda d: (d / "snapshot.lock").write_text("{"), "not valid JSON"),
        (lambda d: (d / "snapshot.lock").write_text("[]"), "not a JSON object"),
        (edit_lock(lambda lock: lock.update(formatVersion=2)), "format version 2"),
        (edit_lock(lambda lock: lock.pop("digest")), "has no valid digest"),
        (edit_lock(lambda lock: lock.update(count=True)), "has no valid count"),
        (edit_lock(lambda lock: lock["policies"].pop()), "count or digest"),
        (edit_lock(lambda lock: lock["policies"][0].update(path="../x.yaml")), "outside the snapshot"),
        (edit_lock(lambda lock: lock["policies"][0].update(path="/etc/passwd")), "outside the snapshot"),
        (edit_lock(lambda lock: lock["policies"][0].update(name="other")), "is not what snapshot.lock says"),
        (edit_lock(lambda lock: lock["policies"].append(lock["policies"][0])), "twice"),
    ],
)
def test_a_snapshot_that_is_not_what_its_lock_says_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], named: str
) -> None:
    write(tmp_path, *POLICIES)
    damage(tmp_path)
    with pytest.raises(SnapshotError) as caught:
        snapshot.read(tmp_path)
    assert named in str(caught.value)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "s", *POLICIES)
    (tmp_path / "elsewhere").write_bytes((tmp_path / "s" / ONE).read_bytes())
    (tmp_path / "s" / ONE).unlink()
    (tmp_path / "s" / ONE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SnapshotError, match="is missing"):
        snapshot.read(tmp_path / "s")
    write(tmp_path / "s", *POLICIES)
    assert not (tmp_path / "s" / ONE).is_symlink()


def test_a_linked_folder_leads_nothing_out_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "s" / "clusterpolicies.kyverno.io").symlink_to(tmp_path / "outside")
    with pytest.raises(ConfigurationError, match="a folder in it is a link"):
        write(tmp_path / "s", *POLICIES)
    assert list((tmp_path / "outside").iterdir()) == []
    (tmp_path / "s" / "clusterpolicies.kyverno.io").unlink()
    write(tmp_path / "s", *POLICIES)
    (tmp_path / "s" / "clusterpolicies.kyverno.io").rename(tmp_path / "elsewhere")
    (tmp_path / "s" / "clusterpolicies.kyverno.io").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SnapshotError, match="is missing"):
        snapshot.read(tmp_path / "s")


def test_other_files_and_hidden_folders_are_ignored(tmp_path: Path) -> None:
    write(tmp_path, *POLICIES)
    (tmp_path / "README.md").write_text("hello")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.yaml").write_text("a: 1")
    assert len(snapshot.read(tmp_path).policies) == len(POLICIES)


def test_a_missing_directory_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="insights-renderer render --out"):
        snapshot.read(tmp_path / "missing")


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="can't be written"):
        write(tmp_path / "file", *POLICIES)
    with pytest.raises(ConfigurationError, match="can't be written"):
        write(tmp_path / "file" / "below", *POLICIES)
    with pytest.raises(ConfigurationError, match="can't be written"):
        write(Path("/proc/snapshot"), *POLICIES)


def test_names_that_no_file_can_have_still_have_their_own_file(tmp_path: Path) -> None:
    bodies = [
        cluster_policy("a" * 253),
        cluster_policy("a" * 252 + "b"),
        cluster_policy("nul"),
        cluster_policy("con.x"),
    ]
    write(tmp_path, *bodies)
    assert len(snapshot.read(tmp_path).policies) == 4
    assert (tmp_path / "clusterpolicies.kyverno.io" / "nul~.yaml").is_file()
