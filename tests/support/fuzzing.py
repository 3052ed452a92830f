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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st

from applier import plan, saved_plan
from applier.change import Plan
from applier.guards.refusals import Allowed
from applier.kyverno_cli import account, evaluation, output
from applier.report.document import Basis, document
from applier.verdict import Verdict
from renderer import snapshot
from renderer.errors import Failure, InputError, SnapshotError, printable
from renderer.manifest import yamlio
from renderer.manifest.document import Policy, parse
from renderer.manifest.jsontypes import JsonObject
from renderer.snapshot import LOCK, Snapshot
from tests.support import kyverno_words as words
from tests.support.mutation import mutate
from tests.support.plans import SNAPSHOT
from tests.support.policies import cluster_policy, desired, live, live_object, validating_policy
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


def _shown(text: str) -> None:
    """It can be printed as the programs print their messages."""
    printable(text).encode()


#: Memory, where there is a place for it: thousands of small files are made.
_ROOM: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None
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
            name="cli",
            inputs=st.tuples(damaged(stdouts, (*_CLI, *_JSON)), damaged(stderrs, _CLI)),
            check=read_printed,
            pieces=(*_CLI, *_JSON),
            grown=lambda data: (data, data),
        ),
    ]
