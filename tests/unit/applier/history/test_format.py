"""A revision as bytes: what is written is read, and whatever was changed since is noticed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from applier.history import format as history_format
from applier.history.format import Head, Origin, RevisionError, pack, read_head, unpack, write_head
from applier.journal.format import JournalError
from applier.journal.format import read_head as read_journal
from applier.journal.format import write_head as write_journal
from applier.journal.key import Key
from applier.journal.sealed import Trust, chunk_digest, split
from renderer.manifest.jsontypes import Json
from tests.support.policies import cluster_policy, desired, exception, namespaced_policy
from tests.unit.applier.journal.test_format import head as journal_head

KEY = Key(b"the token of Insights")
POLICIES = desired(cluster_policy("one"), namespaced_policy("two"), exception("three"))
HEAD = Head(
    name="4f0cleas-3-aa",
    number=3,
    kept="2026-01-01T00:00:00Z",
    lease="4f0c-lease",
    cluster={"a": "1"},
    run="host_1_ab",
    account="admin",
    origin=Origin(command="apply", organization="acme", cluster="prod", commit="c0ffee"),
    digest="d" * 64,
    policies=3,
    created=1,
    updated=2,
    deleted=4,
    chunks=tuple(map(chunk_digest, pack(POLICIES))),
)


def holding(*bodies: Json) -> tuple[Head, tuple[bytes, ...]]:
    """A head that names chunks with these bodies, whoever wrote them."""
    chunks = split(list(bodies), 1000)
    return replace(HEAD, policies=len(bodies), chunks=tuple(map(chunk_digest, chunks))), chunks


def test_what_is_packed_is_unpacked() -> None:
    assert list(unpack(HEAD, pack(POLICIES))) == list(POLICIES)
    assert pack(POLICIES) == pack(POLICIES)
    assert len(unpack(*holding())) == 0
    for key in (KEY, None):
        assert read_head(write_head(HEAD, key), key) == (HEAD, Trust.VERIFIED if key else Trust.NO_KEY)


@pytest.mark.parametrize("name", sorted(json.loads(write_head(HEAD, None)).keys() - {"formatVersion"}))
def test_no_field_can_be_changed_without_the_key(name: str) -> None:
    fields = json.loads(write_head(HEAD, KEY))
    other: dict[str, Any] = {
        "number": 4, "policies": 4, "created": 5, "updated": 5, "deleted": 5, "digest": "e" * 64, "chunks": [],
        "cluster": {}, "origin": {**fields["origin"], "commit": "beef"}, "record": "other",
    }  # fmt: skip
    changed = json.dumps(fields | {name: other.get(name, "other")}).encode()
    if name == "record":
        with pytest.raises(RevisionError):
            read_head(changed, KEY)
        return
    assert read_head(changed, KEY)[1] is Trust.WRONG


@pytest.mark.parametrize(
    "change",
    [
        {"number": -1}, {"number": 10**9}, {"number": True}, {"number": "3"}, {"name": "../x"}, {"digest": "x"},
        {"chunks": ["../x"]}, {"origin": {}}, {"origin": None}, {"cluster": []}, {"kept": None}, {"formatVersion": 0},
    ],
)  # fmt: skip
def test_what_is_no_head_is_an_error(change: dict[str, Any]) -> None:
    fields = json.loads(write_head(HEAD, None)) | change
    with pytest.raises(RevisionError, match="can't be read"):
        read_head(json.dumps(fields).encode(), KEY)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_an_error(data: bytes) -> None:
    with pytest.raises(RevisionError, match="can't be read"):
        read_head(data, KEY)


def test_a_newer_version_is_told() -> None:
    fields = json.loads(write_head(HEAD, None)) | {"formatVersion": 2}
    with pytest.raises(RevisionError, match="format version 2; this program knows 1"):
        read_head(json.dumps(fields).encode(), KEY)


def test_a_journal_is_no_revision_though_one_key_signs_both() -> None:
    with pytest.raises(RevisionError):
        read_head(write_journal(journal_head(), KEY), KEY)
    with pytest.raises(JournalError):
        read_journal(write_head(HEAD, KEY), KEY)


def test_a_chunk_that_was_changed_or_cut_is_named() -> None:
    (chunk,) = pack(POLICIES)
    for wrong in (chunk[:-1], chunk[1:], b"", chunk + b"x"):
        with pytest.raises(RevisionError, match="chunk 1 of 1 is not what the head says"):
            unpack(HEAD, [wrong])


def test_policies_that_would_fill_the_memory_are_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_format, "POLICIES_BYTES", 100)
    with pytest.raises(RevisionError, match="more than 100 bytes"):
        unpack(HEAD, pack(POLICIES))


OWNED = next(iter(POLICIES)).body


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (cluster_policy(), "is not owned by Insights"),
        ({**OWNED, "kind": "Secret"}, "is not a kind that is managed here"),
        ({**OWNED, "apiVersion": "v1", "kind": "Secret"}, "is not a policy"),
        ({**OWNED, "metadata": {**OWNED["metadata"], "name": "../x"}}, "is no Kubernetes name"),
        ({**OWNED, "metadata": {**OWNED["metadata"], "ownerReferences": [{}]}}, "are a controller's, never ours"),
        ("text", "not a policy"),
        (None, "not a policy"),
    ],
)
def test_what_is_no_policy_of_ours_is_refused_whoever_signed_it(body: Json, words: str) -> None:
    with pytest.raises(RevisionError) as raised:
        unpack(*holding(body))
    assert words in str(raised.value)
    assert "revision 3" in str(raised.value)


def test_a_set_that_is_not_what_the_head_says_is_refused() -> None:
    twice = holding(OWNED, OWNED)
    with pytest.raises(RevisionError) as raised:
        unpack(*twice)
    assert "is wanted twice" in str(raised.value)
    head, chunks = holding(OWNED)
    with pytest.raises(RevisionError, match="the 2 policies that its head says"):
        unpack(replace(head, policies=2), chunks)
    chunks = split({"a": 1}, 1000)
    with pytest.raises(RevisionError, match="the 3 policies"):
        unpack(replace(HEAD, chunks=tuple(map(chunk_digest, chunks))), chunks)
