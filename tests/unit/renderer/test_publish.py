"""From sources to a snapshot in one step: what is guarded, and what is told of a change."""

from __future__ import annotations

from pathlib import Path

import pytest

from renderer import snapshot
from renderer.commit_message import Action
from renderer.errors import DocumentErrors, ExitCode, Refusal
from renderer.publish import Published, Target, publish
from renderer.render import Source
from tests.support.policies import answer, cluster_policy


def put(directory: Path, text: str, *, allow_empty: bool = False, explain: bool = False) -> Published:
    target = Target(directory=directory, organization="acme", cluster="prod", allow_empty=allow_empty, explain=explain)
    return publish([Source(name="Insights", data=text.encode())], target)


def told(published: Published) -> list[tuple[Action, str]]:
    assert published.change is not None
    return [(policy.action, policy.name.rpartition("/")[2]) for policy in published.change.policies]


def test_an_emptied_snapshot_is_refused_and_an_empty_new_one_is_not(tmp_path: Path) -> None:
    assert len(put(tmp_path / "new", "").policies) == 0
    put(tmp_path / "s", answer(cluster_policy()))
    with pytest.raises(Refusal) as raised:
        put(tmp_path / "s", "")
    assert raised.value.code == ExitCode.EMPTY_SET
    assert len(snapshot.read(tmp_path / "s").policies) == 1
    assert len(put(tmp_path / "s", "", allow_empty=True).policies) == 0


def test_a_broken_document_changes_nothing(tmp_path: Path) -> None:
    put(tmp_path / "s", answer(cluster_policy()))
    with pytest.raises(DocumentErrors):
        put(tmp_path / "s", answer(cluster_policy("new")) + "---\nkind: [\n")
    assert [policy.identity.name for policy in snapshot.read(tmp_path / "s").policies] == ["require-team"]


def test_a_change_is_told_only_on_request_and_only_where_there_is_one(tmp_path: Path) -> None:
    text = answer(cluster_policy("one"), cluster_policy("two"))
    assert put(tmp_path / "s", text).change is None
    assert put(tmp_path / "s", text, explain=True).change is None
    changed = put(
        tmp_path / "s", answer(cluster_policy("two", message="Other."), cluster_policy("three")), explain=True
    )
    assert sorted(told(changed), key=str) == [
        (Action.ADDED, "three"),
        (Action.CHANGED, "two"),
        (Action.REMOVED, "one"),
    ]
    assert changed.change is not None
    assert (changed.change.organization, changed.change.cluster) == ("acme", "prod")
    assert changed.change.digest == snapshot.read(tmp_path / "s").digest


def test_what_was_edited_by_hand_is_told_as_a_change_back(tmp_path: Path) -> None:
    text = answer(cluster_policy("one"), cluster_policy("two"))
    put(tmp_path / "s", text)
    path = tmp_path / "s" / "clusterpolicies.kyverno.io" / "one.yaml"
    path.write_text(path.read_text().replace("Set the label team.", "Edited."))
    (tmp_path / "s" / "clusterpolicies.kyverno.io" / "two.yaml").write_text("no policy: [")
    assert told(put(tmp_path / "s", text, explain=True)) == [(Action.CHANGED, "one"), (Action.ADDED, "two")]
    snapshot.read(tmp_path / "s")
