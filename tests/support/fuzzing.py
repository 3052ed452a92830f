"""Fuzzed readers of what others wrote: what they are given, made from real input, and what must hold of any.

A reader gives values, or the failure that it is documented to raise, which can be shown; it never raises anything
else. `ci/fuzz` runs the targets for long and watches time and memory too, `tests/property/test_fuzz.py` shortly.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import random
import tempfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st

from applier import diff, plan, saved_plan
from applier.against import dump
from applier.change import Plan
from applier.guards.refusals import Allowed
from applier.history import format as revision
from applier.history.format import Origin
from applier.jobs import record
from applier.journal import format as journal
from applier.journal.format import Fencing
from applier.journal.key import Key
from applier.journal.sealed import Trust, canonical, chunk_digest
from applier.kyverno_cli import account, evaluation, output
from applier.report.document import Basis, document
from applier.verdict import Verdict
from renderer import snapshot
from renderer.errors import DocumentErrors, Failure, InputError, SnapshotError, printable
from renderer.http import retry_after_seconds
from renderer.insights.jobs import parse_claim
from renderer.manifest import yamlio
from renderer.manifest.document import Policy, parse
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content
from renderer.render import Source, render
from renderer.snapshot import LOCK, Snapshot
from tests.support import kyverno_words as words
from tests.support.mutation import mutate
from tests.support.plans import SNAPSHOT
from tests.support.policies import answer, cluster_policy, desired, live, live_object, validating_policy
from tests.support.yaml_traps import FRAGMENTS, REFUSED, STREAMS, VALUES


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A reader: `inputs` are what it is given, and `check` fails where something is wrong with what it makes of one.

    `grown` makes an input of a size from pieces, for a reader whose time has to grow no faster than its input.
    """

    name: str
    inputs: st.SearchStrategy[Any]
    check: Callable[[Any], None]
    pieces: Sequence[bytes] = ()
    grown: Callable[[bytes], Any] = field(default=lambda data: data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeds:
    """Real input: files of policies, and what the kyverno CLI printed of some (standard output and error)."""

    policies: Sequence[bytes]
    printed: Sequence[tuple[str, str]]


SEEDS: Final = Seeds(
    policies=[path.read_bytes() for path in sorted(SNAPSHOT.rglob("*/*.yaml"))],
    printed=[
        (words.SKIPPED, words.refused(*words.SKIPPED_REASONS)),
        ("Warning: p0.yaml: kyverno.io/v1 ClusterPolicy is deprecated\n", words.sentinel(0) + words.NOT_COMPILED),
        ("", words.sentinel(0) + words.UNKNOWN_FIELD + words.sentinel(1) + words.WRONG_TYPE + words.sentinel(2)),
        ("", words.sentinel(0) + words.NOT_COMPILED_ON_ITS_OWN),
        (words.REPORT + words.NAMESPACED_REPORT + words.MUTATED, words.PANIC),
        (words.listed("Policies Skipped", "1. a: bad"), words.refused("bad")),
        ("Version: 1.19.1\nTime: ---\n", ""),
    ],
)
#: What is significant to JSON and to the parts of its documents.
_JSON: Final = tuple(
    piece.encode()
    for piece in (
        *('{"a":', '{"', '":', "[", "]", "}", '"', ",", "\\ud800", "\\u0000", "1e999", "NaN", "null", "true", "0"),
        *("-1", "1.5", "9" * 5000, '"../a"', '"/etc/passwd"', '"a.yaml"', '""'),
    )
)  # fmt: skip
_YAML: Final = tuple(piece.encode() for piece in (*FRAGMENTS, *VALUES, "<<: *x\n", "a: &x {}\n", "k: 1\n", "\ufeff"))
_CLI: Final = tuple(
    piece.encode()
    for piece in (
        *("Invalid value: {", "Invalid value: [", "}: ", "]: ", "failed to parse document (", ")", " is invalid: "),
        *("> skipping invalid YAML file ", "Non-fatal parsing error ", 'error="', 'error="stat ::1: ', 'error="\\x'),
        *('\\ud800"', "::", "\n", '"', "\\", "\x00", "\u2028", "99999", "9" * 5000, "panic: ", "Version: v1.19.1"),
        *("> policy validation error error=", words.DIVIDER + "\n", "Policies Skipped:\n", "1. a: ", "Error: "),
        *("Error: failed to compile policy p0 (", "pass: 0, fail: 0, warn: 0, error: 0, skip: 0", "valid values: ["),
        *('{"kind":"Report","results":', '[{"policy":', "[null]", "{}", "spec.a", "spec", "[1]"),
        *("Applying 1 policy rule(s) to ", "Warning: p0.yaml: "),
    )
)  # fmt: skip
#: How long to wait, as servers say it.
_WAITS: Final = (b"Mon, 01 Jan 2026 00:00:00 ", b"GMT", b"+0000", b"-9999", b"120")
_CLAIMS: Final = tuple(
    json.dumps(said).encode()
    for said in (
        [{"id": 1, "reportType": "trivy", "options": {"imagesToScan": "a,b"}}, {"id": 2, "reportType": "nova"}],
        [{"id": None, "reportType": "trivy"}, {"id": 3, "options": {"a": 1}}, 5],
    )
)
_MOST: Final = 20_000


@st.composite
def damaged(draw: st.DrawFn, seeds: Sequence[bytes], pieces: Sequence[bytes]) -> bytes:
    """One of the seeds, of which parts were left out, said again, or replaced by pieces, other seeds or any bytes."""
    data = bytearray(draw(st.sampled_from(seeds))[:_MOST])
    part = st.one_of(
        st.sampled_from(pieces), st.binary(max_size=4), st.lists(st.sampled_from(pieces), max_size=6).map(b"".join)
    )
    for _ in range(draw(st.integers(0, 5))):
        place = draw(st.integers(0, len(data)))
        end = min(len(data), place + draw(st.one_of(st.integers(0, 8), st.integers(0, len(data)))))
        how = draw(st.sampled_from(["replace", "insert", "repeat", "splice", "cut"]))
        if how == "replace":
            data[place:end] = draw(part)
        elif how == "insert":
            data[place:place] = draw(part) * draw(st.sampled_from([1, 1, 2, 200]))
        elif how == "repeat":
            data[end:end] = data[place:end] * draw(st.integers(1, 3))
        elif how == "splice":
            other = draw(st.sampled_from(seeds))
            data[place:end] = other[draw(st.integers(0, len(other))) :][:2000]
        else:
            del data[place:]
        del data[_MOST:]
    return bytes(data)


def read_yaml(data: bytes) -> None:
    """The reader of YAML and JSON, and what makes policies of documents."""
    documents, problems = yamlio.load_documents(data, source="fuzzed")
    for one in documents:
        policy, mistakes = parse(one)
        problems += mistakes
        written = yamlio.dump(one.value).encode()
        (again,) = yamlio.load(written, source="written")
        assert json.dumps(again.value, sort_keys=True, allow_nan=False) == json.dumps(one.value, sort_keys=True)
        assert one.line_of("metadata", "name") >= one.line
        assert (policy is None) == bool(mistakes)
    for problem in problems:
        assert problem.message
        _shown(str(problem))


def read_snapshot(contents: dict[str, bytes]) -> None:
    """The reader of snapshots, from files in memory and from a directory, and what a writer asks of an earlier one."""
    outcomes = []
    with tempfile.TemporaryDirectory(dir=_ROOM) as folder:
        for path, data in contents.items():
            target = Path(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        for in_memory in (True, False):
            try:
                outcomes.append(
                    snapshot.read_files(contents, source=folder) if in_memory else snapshot.read(Path(folder))
                )
            except SnapshotError as error:
                _shown(str(error))
        assert len(outcomes) in {0, 2}
        for own in snapshot.own_paths(Path(folder)):
            assert Path(folder, own).resolve().is_relative_to(Path(folder).resolve())
        try:
            snapshot.policies_at(Path(folder))
        except SnapshotError as error:
            _shown(str(error))
    for found in outcomes:
        files = snapshot.render_files(found.policies, organization=found.organization, cluster=found.cluster)
        assert list(snapshot.read_files(files.contents, source="again").policies) == list(found.policies)


def read_plan(data: bytes) -> None:
    """The reader of saved plans, and what is asked of one before anything is applied."""
    with tempfile.NamedTemporaryFile(dir=_ROOM) as file:
        Path(file.name).write_bytes(data)
        try:
            approved = saved_plan.read(Path(file.name))
        except InputError as error:
            _shown(str(error))
            return
    made = _planned()
    for ask in (
        approved.require_appliable,
        lambda: approved.require_cluster(_IDENTITY),
        lambda: approved.require_same(_IDENTITY, _planned_snapshot(), made),
    ):
        try:
            ask()
        except Failure as error:
            _shown(str(error))


def read_printed(printed: tuple[bytes, bytes]) -> None:
    """The reader of what the kyverno CLI prints, and all that decides by it."""
    stdout, stderr = (text.decode(errors="replace") for text in printed)
    reading = output.read(stdout, stderr)
    rows = output.results(stdout)
    assert output.is_readable(output.version(stdout)) >= output.is_seen(output.version(stdout))
    batch = list(enumerate(_judged()))
    step = account.settle(batch, reading)
    settled = {finding.policy for finding in step.verdict.findings} | {one for one, _ in step.verdict.unjudged}
    again = {policy.identity for some in step.again for _, policy in some}
    loaded = {policy.identity for policy in step.loaded}
    assert settled | again | loaded >= {policy.identity for _, policy in batch}
    assert not loaded & again
    assert all(len(some) < len(batch) or bool(settled) or len(step.again) > 0 for some in step.again)
    probes = list(enumerate(probe for _, policy in batch for probe in account.probes(policy)))
    verdict, _ = account.settle_probes(probes, reading, rows)
    evaluation._unjudged(reading, len(batch))
    for text in (
        *(part for row in rows for part in (row.policy, row.message, row.resource, row.rule, row.uid, row.outcome)),
        *(str(finding.problem) for finding in (*step.verdict.findings, *verdict.findings)),
        *(reason for _, reason in (*step.verdict.unjudged, *verdict.unjudged)),
        *(output.explain(reason)[1] for reason in (*reading.dropped.values(), reading.other_error)),
    ):
        _shown(text)


def read_insights(data: bytes) -> None:
    """The readers of what Insights answers: policies, claimed jobs, and how long to wait."""
    try:
        claim = parse_claim(data)
    except ValueError as error:
        _shown(str(error))
    else:
        for text in (*claim.nameless, *(job.problem for job in claim.unreadable)):
            _shown(text)
        for job in claim.jobs:
            # They become names, labels and variables of a pod.
            "".join((str(job.id), job.report_type, *job.options, *job.options.values())).encode()
    try:
        policies = render([Source(name="Insights", data=data)])
    except DocumentErrors as error:
        _shown(str(error))
    else:
        assert list(render([Source(name="again", data=answer(*(one.body for one in policies)).encode())])) == list(
            policies
        )
    wait = retry_after_seconds(data[:200].decode("latin-1"), now=datetime(2026, 1, 1, tzinfo=UTC))
    assert wait is None or wait >= 0


def read_dump(data: bytes) -> None:
    """The reader of what kubectl printed, and what a plan asks of each object."""
    try:
        found = dump.read(data, source="fuzzed")
    except DocumentErrors as error:
        _shown(str(error))
        return
    for policy in found.policies:
        kind = policy.identity.kind
        diff.wanted(policy.body, policy.body, kind=kind, api_version=policy.api_version)
        diff.patch(content(policy.body, kind), content(cluster_policy(), kind))
        for text in (str(policy.identity), *diff.other_managers(policy.body)):
            _shown(text)


def read_kept(kept: tuple[bytes, bytes]) -> None:
    """The readers of what outlives a run: a journal and its intents, a revision and its policies, the jobs' record."""
    head, chunk = kept
    _read_journal(head, chunk)
    _read_revision(head, chunk)
    try:
        read = record.loaded(head.decode(errors="replace"), source="fuzzed")
    except InputError as error:
        _shown(str(error))
    else:
        assert record.loaded(record.dumped(read), source="again") == read


def _read_journal(data: bytes, chunk: bytes) -> None:
    try:
        head, trust = journal.read_head(data, _KEY)
        assert (trust is Trust.VERIFIED) == (journal.read_head(journal.write_head(head, _KEY), _KEY) == (head, trust))
        for change in journal.unpack(head, [chunk] * len(head.chunks)):
            _shown(str(change.identity))
    except journal.JournalError as error:
        _shown(str(error))


def _read_revision(data: bytes, chunk: bytes) -> None:
    try:
        head, trust = revision.read_head(data, _KEY)
        assert (trust is Trust.VERIFIED) == (revision.read_head(revision.write_head(head, _KEY), _KEY) == (head, trust))
        for policy in revision.unpack(head, [chunk] * len(head.chunks)):
            _shown(str(policy.identity))
    except revision.RevisionError as error:
        _shown(str(error))


def _shown(text: str) -> None:
    """It can be printed as the programs print their messages."""
    printable(text).encode()


#: Memory, where there is a place for it: thousands of small files are made.
_ROOM: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None
_KEY: Final = Key(b"the token of Insights")
_IDENTITY: Final = {"namespace/kube-system": "u1"}
_WANTED: Final = (cluster_policy("changed", message="Other."), cluster_policy("same"), validating_policy("new"))
_LIVE: Final = [live_object(cluster_policy(name)) for name in ("changed", "same", "withdrawn")]


@functools.cache
def _planned() -> Plan:
    return plan.draft(desired(*_WANTED), live(*_LIVE), allowed=Allowed())


@functools.cache
def _planned_snapshot() -> Snapshot:
    return Snapshot(organization="acme", cluster="prod", policies=desired(*_WANTED), digest="a" * 64)


@functools.cache
def _judged() -> list[Policy]:
    found = (parse(one)[0] for data in SEEDS.policies for one in yamlio.load(data, source="seed"))
    return [policy for policy in found if policy][:8] + list(desired(*_WANTED))


def _plan_document() -> JsonObject:
    basis = Basis(
        server="https://c",
        identity=_IDENTITY,
        snapshot=_planned_snapshot(),
        commit="b" * 40,
        flags={"adopt": False, "max-delete": None, "only": ["ClusterPolicy/a"]},
    )
    return document(_planned(), Verdict(), basis)


@st.composite
def _edited_plans(draw: st.DrawFn, whole: JsonObject) -> bytes:
    """A saved plan in which some values were changed: JSON still, and often a plan."""
    found = copy.deepcopy(whole)
    chance = draw(st.randoms(use_true_random=False))
    for _ in range(draw(st.integers(1, 4))):
        changes = found.get("changes")
        within = [change for change in changes if isinstance(change, dict)] if isinstance(changes, list) else []
        mutate(chance, chance.choice([found, *within]))
    if draw(st.booleans()):
        found.update({key: whole[key] for key in ("format", "formatVersion")})
    return json.dumps(found).encode()


@st.composite
def _snapshots(draw: st.DrawFn, policies: Sequence[Policy]) -> dict[str, bytes]:
    """The files of a snapshot, damaged; mostly with a lock that says that they are as they should be."""
    chosen = {policy.identity: policy for policy in draw(st.lists(st.sampled_from(policies), max_size=3))}
    kept = desired(*(policy.body for policy in chosen.values()))
    files = dict(snapshot.render_files(kept, organization="acme", cluster="prod").contents)
    chance = draw(st.randoms(use_true_random=False))
    for path in draw(st.lists(st.sampled_from(sorted(files)), max_size=2)):
        files[path] = draw(damaged([files[path]], (*_YAML, *_JSON)))
    how = draw(st.sampled_from(["sealed", "edited", "as it is", "extra"]))
    if how == "extra":
        files[draw(st.sampled_from(["more.yaml", ".hidden/a.yaml", "a/b/C.JSON", "notes.txt"]))] = b"a: 1\n"
    elif how != "as it is":
        files[LOCK] = _sealed(files, chance if how == "edited" else None)
    return files


@st.composite
def _kept(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """The head of a journal or a revision, or a record, in which some values were changed, and a chunk likewise.

    Mostly the head says that the chunk is as it should be, and now and then it is signed.
    """
    chance = draw(st.randoms(use_true_random=False))
    head, chunk = draw(st.sampled_from(_heads()))
    if draw(st.booleans()):
        held = json.loads(zlib.decompress(chunk))
        mutate(chance, held)
        chunk = zlib.compress(json.dumps(held).encode())
    fields = json.loads(head)
    for _ in range(draw(st.integers(0, 2))):
        mutate(chance, fields)
    if draw(st.booleans()):
        fields["chunks"] = [chunk_digest(chunk)]
    if draw(st.booleans()):
        fields["hmac"] = _KEY.sign(canonical(fields))
    head = json.dumps(fields).encode()
    return (head if draw(st.booleans()) else draw(damaged([head], _JSON))), chunk


@functools.cache
def _heads() -> list[tuple[bytes, bytes]]:
    changes = _planned().effective
    (intents,) = journal.pack(changes)
    began = journal.Head(
        transaction="abcd-1-ef",
        fencing=Fencing(lease="lease-uid", transitions=1),
        cluster=_IDENTITY,
        holder="host_1_ab",
        started="2026-01-01T00:00:00Z",
        mode="rollback",
        supersedes=("older-1-aa",),
        intents=len(changes),
        chunks=(chunk_digest(intents),),
    )
    (policies,) = revision.pack(desired(*_WANTED))
    put_in_place = revision.Head(
        name="4f0cleas-3-aa",
        number=3,
        kept=began.started,
        lease="lease-uid",
        cluster=_IDENTITY,
        run=began.holder,
        account="admin",
        origin=Origin(command="apply"),
        digest="d" * 64,
        policies=len(_WANTED),
        chunks=(chunk_digest(policies),),
    )
    waiting = record.Entry(id=1, report_type="trivy", options={"a": "b"}, claimed_at=7.5)
    ended = replace(waiting, id=2, state=record.State.FINISHED, has_run=True, outcome="failed", remark="No image.")
    jobs = record.dumped(record.Record(organization="acme", cluster="prod", leader="a", entries=(waiting, ended)))
    return [
        (journal.write_head(began, _KEY), intents),
        (revision.write_head(put_in_place, _KEY), policies),
        (jobs.encode(), intents),
    ]


def _sealed(files: dict[str, bytes], chance: random.Random | None) -> bytes:
    """The lock, with the digests that the files have; edited first, if by chance."""
    try:
        lock = json.loads(files[LOCK])
        if chance:
            mutate(chance, chance.choice([lock, *lock["policies"]]))
        for entry in lock["policies"]:
            entry["sha256"] = hashlib.sha256(files.get(entry["path"], b"")).hexdigest()
        lock["digest"] = snapshot._digest(lock["policies"])
        return json.dumps(lock).encode()
    except (ValueError, LookupError, TypeError, RecursionError):
        return files[LOCK]


def _dumps() -> list[bytes]:
    """Live objects as kubectl prints them: a List in JSON and in YAML, documents, and a list of the API."""
    whole = {"apiVersion": "v1", "kind": "List", "items": _LIVE}
    raw = {"apiVersion": "kyverno.io/v1", "kind": "ClusterPolicyList", "items": [{**_LIVE[0]}]}
    return [json.dumps(whole).encode(), yamlio.dump(whole).encode(), answer(*_LIVE).encode(), json.dumps(raw).encode()]


def _policies(data: Iterable[bytes]) -> list[Policy]:
    found = (parse(one)[0] for part in data for one in yamlio.load_documents(part, source="seed")[0])
    return [policy for policy in found if policy]


def targets(seeds: Seeds = SEEDS) -> list[Target]:
    """Every fuzzed reader, whose inputs are made from those seeds."""
    streams = [*seeds.policies, *STREAMS, *(case.text for case in REFUSED)]
    whole = _plan_document()
    stdouts, stderrs = ([text.encode() for text in texts] for texts in zip(*seeds.printed, strict=True))
    return [
        Target(name="yaml", inputs=damaged(streams, (*_YAML, *_JSON)), check=read_yaml, pieces=(*_YAML, *_JSON)),
        Target(name="snapshot", inputs=_snapshots(_policies(seeds.policies)), check=read_snapshot),
        Target(
            name="plan",
            inputs=st.one_of(_edited_plans(whole), damaged([json.dumps(whole).encode()], _JSON)),
            check=read_plan,
            pieces=_JSON,
            grown=lambda data: b'{"format": "' + whole["format"].encode() + b'", "changes": ' + data,
        ),
        Target(
            name="insights",
            inputs=damaged([*_CLAIMS, *streams], (*_JSON, *_YAML, *_WAITS)),
            check=read_insights,
            pieces=(*_JSON, *_YAML),
        ),
        Target(
            name="dump",
            inputs=damaged(_dumps(), (*_JSON, *_YAML)),
            check=read_dump,
            pieces=_JSON,
            grown=lambda data: b'{"kind": "List", "items": ' + data,
        ),
        Target(
            name="kept",
            inputs=_kept(),
            check=read_kept,
            pieces=_JSON,
            grown=lambda data: (b'{"formatVersion": 1, "chunks": ' + data, b""),
        ),
        Target(
            name="cli",
            inputs=st.tuples(damaged(stdouts, (*_CLI, *_JSON)), damaged(stderrs, _CLI)),
            check=read_printed,
            pieces=(*_CLI, *_JSON),
            grown=lambda data: (data, data),
        ),
    ]
