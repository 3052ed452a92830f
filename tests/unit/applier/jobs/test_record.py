"""The record as it is written down: nothing is lost on the way, and what somebody made of it is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from applier.jobs.record import RECORD_BYTES, REMARK_CHARACTERS, Entry, Record, State, dumped, fitting, loaded, merged
from renderer.errors import InputError
from renderer.on_demand import JobStatus

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
TIME = st.floats(min_value=0, max_value=2e9)
STATUS = st.sampled_from([None, *get_args(JobStatus)])
ENTRIES = st.builds(
    Entry,
    id=st.integers(0, 2**70),
    report_type=st.sampled_from(["trivy", "unheard-of"]),
    options=st.dictionaries(TEXT, TEXT, max_size=3),
    state=st.sampled_from(State),
    claimed_at=TIME,
    started_at=TIME,
    troubled_since=TIME,
    finished_at=TIME,
    job_uid=TEXT,
    has_run=st.booleans(),
    was_ready=st.booleans(),
    outcome=STATUS,
    remark=TEXT,
    reported=STATUS,
)
RECORDS = st.builds(
    Record,
    organization=TEXT,
    cluster=TEXT,
    leader=TEXT,
    renewed=TEXT,
    entries=st.lists(ENTRIES, max_size=3, unique_by=lambda entry: entry.id).map(tuple),
)
WAITING = Entry(id=1, report_type="trivy", options={"a": "b"}, claimed_at=7.5)


@settings(max_examples=50)
@given(RECORDS)
def test_what_is_read_is_what_was_written(record: Record) -> None:
    read = loaded(dumped(record), source="it")
    assert read == record
    assert [list(entry.options) for entry in read.entries] == [list(entry.options) for entry in record.entries]


def test_each_job_is_a_line_that_people_can_read() -> None:
    record = Record(organization="acme", cluster="prod", leader="a", renewed="a 1", entries=(WAITING,))
    assert dumped(record) == (
        '{"formatVersion": 1, "organization": "acme", "cluster": "prod", "leader": "a", "renewed": "a 1", "jobs": [\n'
        '  {"id": 1, "reportType": "trivy", "state": "waiting", "options": {"a": "b"}, "claimedAt": 7.5}\n]}\n'
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (None, "it is no record of on-demand jobs: somebody changed it"),
        ({"formatVersion": 2}, "it has format 2, which this version does not know"),
        ({"jobs": None}, "it is no record"),
        ({"jobs": [{"id": "x"}]}, "it is no record"),
        ({"jobs": [{"id": -1, "reportType": "trivy", "state": "waiting"}]}, "it is no record"),
        ({"jobs": [{"id": 1.5, "reportType": "trivy", "state": "waiting"}]}, "it is no record"),
        (
            {"jobs": [{"id": 1, "reportType": "trivy", "state": "waiting", "claimedAt": float("nan")}]},
            "it is no record",
        ),
        ({"jobs": [{"id": 1, "reportType": "trivy", "state": "asleep"}]}, "it is no record"),
        ({"jobs": [{"id": 1, "reportType": "trivy", "state": "waiting", "options": ["a"]}]}, "it is no record"),
        ({"jobs": [{"id": 1, "reportType": "trivy", "state": "waiting", "options": {"a": 1}}]}, "it is no record"),
        ({"jobs": [{"id": 1, "reportType": "trivy", "state": "waiting", "outcome": "well"}]}, "it is no record"),
        ({"leader": None}, "it is no record"),
    ],
)
def test_what_somebody_made_of_it_is_refused(changes: dict[str, object] | None, says: str) -> None:
    text = "" if changes is None else json.dumps(json.loads(dumped(Record(entries=(WAITING,)))) | changes)
    with pytest.raises(InputError, match=says):
        loaded(text, source="it")


def test_claimed_twice_is_claimed_once() -> None:
    record = Record(entries=(WAITING,))
    other = replace(WAITING, id=2)
    added = record.with_added([replace(WAITING, report_type="nova"), other, other])
    assert added.entries == (WAITING, other)


@given(st.sets(st.integers(1, 9)), st.sets(st.integers(1, 9)), st.sets(st.integers(1, 9)))
def test_merging_keeps_what_others_added_and_forgets_what_we_are_done_with(
    base: set[int], ours: set[int], theirs: set[int]
) -> None:
    def holding(ids: set[int]) -> Record:
        return Record(entries=tuple(Entry(id=job_id, report_type="trivy") for job_id in sorted(ids)))

    assert merged(holding(base), holding(ours), holding(theirs)).ids() == ours | (theirs - base)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=12), st.integers(300, 6_000))
def test_what_is_too_much_goes_by_size_and_no_more_of_it_than_must(sizes: list[int], limit: int) -> None:
    entries = [replace(WAITING, id=number, options={"a": "漢" * size}) for number, size in enumerate(sizes)]
    record = Record(entries=(*entries, Entry(id=99, report_type="nova", state=State.STARTING, options={"b": "c"})))
    fitted = fitting(record, now=8, limit=limit)
    failed = {entry.id for entry in fitted.entries if entry.outcome}
    kept = [size for number, size in enumerate(sizes) if number not in failed]
    assert [entry.id for entry in fitted.entries] == [entry.id for entry in record.entries]
    assert fitted.entries[-1] == record.entries[-1]
    assert all(sizes[number] >= size for number in failed for size in kept)
    if kept:
        assert len(dumped(fitted).encode()) <= limit
    if len(dumped(record).encode()) <= limit:
        assert fitted is record


def test_a_reason_is_kept_as_far_as_people_read_it() -> None:
    ended = WAITING.finished("failed", "x" * 1_000_000, now=9)
    assert (len(ended.remark), ended.options, ended.is_active) == (REMARK_CHARACTERS + 1, {}, False)
    assert 200 * (REMARK_CHARACTERS + 400) < RECORD_BYTES


@pytest.mark.parametrize(
    ("entry", "due"),
    [
        (WAITING, ()),
        (replace(WAITING, state=State.RUNNING), ()),
        (replace(WAITING, has_run=True), ("running",)),
        (replace(WAITING, has_run=True, reported="running"), ()),
        (replace(WAITING, has_run=True, outcome="completed"), ("running", "completed")),
        (replace(WAITING, has_run=True, outcome="completed", reported="running"), ("completed",)),
        (replace(WAITING, outcome="failed"), ("failed",)),
        (replace(WAITING, has_run=True, outcome="failed", reported="failed"), ()),
    ],
)
def test_what_insights_has_yet_to_be_told(entry: Entry, due: tuple[str, ...]) -> None:
    assert entry.due == due
