"""A journal as bytes: all of it comes back, and nothing that was changed on the way is taken for it."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from applier import diff
from applier.change import Action, Change
from applier.journal import format as journal_format
from applier.journal.format import (
    CHUNK_BYTES,
    Fencing,
    Head,
    JournalError,
    State,
    pack,
    read_head,
    unpack,
    write_head,
)
from applier.journal.key import Key, read_key
from applier.journal.sealed import Trust, chunk_digest
from renderer.errors import ConfigurationError
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content
from tests.support.policies import cluster_policy, desired, exception, identity_of, live_object, validating_policy

KEY = Key(b"the token of Insights")


def created(body: JsonObject) -> Change:
    (policy,) = desired(body)
    return Change(identity=policy.identity, action=Action.CREATE, after=policy.body)


def deleted(body: JsonObject) -> Change:
    return Change(identity=identity_of(body), action=Action.DELETE, before=live_object(body))


def updated(before: JsonObject, after: JsonObject, *, action: Action = Action.UPDATE) -> Change:
    (policy,) = desired(after)
    held = live_object(before, owned=action is not Action.ADOPT)
    wanted = diff.wanted(policy.body, held, kind=policy.identity.kind, api_version=after["apiVersion"])
    patch = diff.patch(content(held, policy.identity.kind), wanted)
    return Change(identity=policy.identity, action=action, before=held, after=wanted, patch=patch)


CHANGES = (
    created(exception()),
    created(validating_policy("new")),
    updated(cluster_policy("changed"), cluster_policy("changed", message="Überall ☂ 😀.")),
    updated(cluster_policy("adopted"), cluster_policy("adopted", labels={"a": "b"}), action=Action.ADOPT),
    deleted(cluster_policy("gone", managedFields=[{"manager": "somebody"}])),
)


def head(changes: tuple[Change, ...] = CHANGES, **different: Any) -> Head:
    fields: dict[str, Any] = {
        "transaction": "abcd-1-ef",
        "fencing": Fencing(lease="lease-uid", transitions=1),
        "cluster": {"namespace/kube-system": "uid"},
        "holder": "host_1_ab",
        "started": "2026-01-01T00:00:00Z",
        "mode": "rollback",
        "supersedes": ("older-1-aa",),
        "intents": len(changes),
        "chunks": tuple(map(chunk_digest, pack(changes))),
    }
    return Head(**(fields | different))


def kept(change: Change) -> Change:
    """What a journal keeps of a change."""
    before = change.before
    if before is not None:
        metadata = {key: value for key, value in before["metadata"].items() if key != "managedFields"}
        before = {**{key: value for key, value in before.items() if key != "status"}, "metadata": metadata}
    return replace(change, before=before, policy=None)


def test_everything_that_an_undo_needs_comes_back() -> None:
    assert unpack(head(), pack(CHANGES)) == tuple(map(kept, CHANGES))
    assert pack(CHANGES) == pack(CHANGES)


def test_a_head_comes_back_in_both_states() -> None:
    for state in State:
        written = head(state=state)
        assert read_head(write_head(written, KEY), KEY) == (written, Trust.VERIFIED)


def test_a_signature_is_worth_what_the_key_says() -> None:
    signed, unsigned = write_head(head(), KEY), write_head(head(), None)
    assert read_head(signed, Key(b"another token"))[1] is Trust.WRONG
    assert read_head(signed, None)[1] is Trust.NO_KEY
    assert read_head(unsigned, KEY)[1] is Trust.UNSIGNED
    assert read_head(unsigned, None)[1] is Trust.NO_KEY


@pytest.mark.parametrize("name", sorted(json.loads(write_head(head(), KEY))))
def test_no_field_of_a_head_can_be_forged(name: str) -> None:
    fields = json.loads(write_head(head(), KEY))
    forged: dict[str, Any] = {
        "chunks": ["0" * 64],
        "cluster": {},
        "fencing": {"lease": "lease-uid", "transitions": 2},
        "hmac": "é" * 64,
        "intents": 0,
        "state": "committed",
        "supersedes": [],
        "transaction": "abcd-1-ee",
    }
    if name == "formatVersion":
        return  # another version is refused whoever signed it: below
    fields[name] = forged.get(name, "other")
    assert read_head(json.dumps(fields).encode(), KEY)[1] is Trust.WRONG


def test_a_newer_format_is_not_guessed_at() -> None:
    fields = json.loads(write_head(head(), KEY)) | {"formatVersion": 2}
    with pytest.raises(JournalError, match="format version 2") as raised:
        read_head(json.dumps(fields).encode(), KEY)
    assert "newer one" in raised.value.hint


@given(
    st.binary(max_size=50)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_what_is_no_head_is_told_so(data: bytes) -> None:
    with pytest.raises(JournalError):
        read_head(data, KEY)


@given(
    field=st.sampled_from(sorted(json.loads(write_head(head(), None)))),
    value=st.none() | st.integers(-3, 0) | st.lists(st.none()),
)
def test_a_head_with_nonsense_in_it_is_told_so(field: str, value: object) -> None:
    fields = json.loads(write_head(head(), None)) | {field: value}
    try:
        read_head(json.dumps(fields).encode(), None)
    except JournalError:
        return
    assert (field, value) in [("chunks", []), ("supersedes", []), ("intents", value)]


def test_a_chunk_that_was_changed_is_not_used() -> None:
    (chunk,) = pack(CHANGES)
    with pytest.raises(JournalError, match="chunk 1 of 1 is not what the head says"):
        unpack(head(), [chunk[:-1] + b"x"])


def test_intents_that_fill_the_memory_are_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_format, "INTENTS_BYTES", 100)
    with pytest.raises(JournalError, match="more than 100 bytes"):
        unpack(head(), pack(CHANGES))


def forged(change: Change, **different: Any) -> Change:
    return replace(change, **different)


def of_another_kind(body: JsonObject) -> JsonObject:
    return {**body, "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole"}


CREATED, UPDATED, DELETED = created(cluster_policy("c")), CHANGES[2], deleted(cluster_policy("d"))
NOT_OWNED = live_object(cluster_policy("d"), owned=False)
GENERATED = live_object(cluster_policy("d"), ownerReferences=[{"uid": "x"}])


@pytest.mark.parametrize(
    "change",
    [
        forged(DELETED, before=NOT_OWNED),
        forged(DELETED, before=GENERATED),
        forged(DELETED, before=None),
        forged(DELETED, after=CREATED.after),
        forged(DELETED, identity=identity_of(cluster_policy("other"))),
        forged(DELETED, before=of_another_kind(live_object(cluster_policy("d")))),
        forged(DELETED, action=Action.UNCHANGED),
        forged(CREATED, after=cluster_policy("c")),
        forged(CREATED, before=live_object(cluster_policy("c"))),
        forged(UPDATED, before=live_object(cluster_policy("changed"), owned=False)),
        forged(UPDATED, after=cluster_policy("changed")),
        forged(UPDATED, before=cluster_policy("changed")),
    ],
)
def test_an_intent_that_no_run_of_ours_can_have_had_is_refused(change: Change) -> None:
    chunks = pack([change])
    with pytest.raises(JournalError):
        unpack(head((change,), chunks=tuple(map(chunk_digest, chunks))), chunks)


def test_500_policies_of_20_kb_fit_into_config_maps() -> None:
    noise = random.Random(0)

    def noisy(image: JsonObject) -> JsonObject:
        return {**image, "spec": {"message": noise.randbytes(10_000).hex()}}

    update = CHANGES[2]
    changes = tuple(
        replace(update, before=noisy(update.before or {}), after=noisy(update.after or {})) for _ in range(500)
    )
    chunks = pack(changes)
    assert max(map(len, chunks)) == CHUNK_BYTES < 1_048_576
    assert unpack(head(changes, chunks=tuple(map(chunk_digest, chunks))), chunks) == tuple(map(kept, changes))


def test_a_key_file_has_to_hold_a_secret(tmp_path: Any) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"a-secret-of-enough-bytes\n")
    assert read_key(path).sign(b"x") == Key(b"a-secret-of-enough-bytes").sign(b"x")
    assert "secret" not in repr(read_key(path))
    for wrong in (b"", b"short"):
        path.write_bytes(wrong)
        with pytest.raises(ConfigurationError, match="--journal-key"):
            read_key(path)
    with pytest.raises(ConfigurationError, match="No such file"):
        read_key(tmp_path / "missing")
