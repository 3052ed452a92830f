"""kubectl is asked what it reads: it must be what we read, and what we write it must read as it was.

`kubectl patch --local` with an empty patch prints what kubectl has read, without a server; that it is what
`kubectl create --dry-run=client` sends is shown with every policy of Kyverno's own source.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ci.testbed import corpus, toolchain
from ci.testbed.controlplane import ControlPlane
from renderer.manifest.kinds import KINDS
from renderer.manifest.yamlio import dump, load_documents
from tests.support.json_values import normal, values
from tests.support.tools import tool
from tests.support.yaml_traps import FRAGMENTS, REFUSED, STREAMS, VALUES

pytestmark = pytest.mark.tool

_READ = ("patch", "--local", "--type=json", "--patch=[]")
_CREATE = ("create", "--dry-run=client", "--validate=false")
#: What stands in the way of reading a file, as kubectl says it.
_FAILED = re.compile(r'^(?:error: )?(?:error parsing |unable to decode ")([^":]+)"?: (.*)$', re.MULTILINE)
#: This needs an answer of the form that kubectl can print, not of what can be parsed.
_NO_KIND = "Object 'Kind' is missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The objects that kubectl read, in the order of the files, and the files that it could not read."""

    objects: list[Any]
    failed: frozenset[str]


def kubectl(*arguments: str, files: Path | str, stdin: bytes = b"") -> Seen:
    """Run kubectl in an empty environment on a directory of files or (`-`) on its input."""
    done = subprocess.run(
        [tool("kubectl"), *arguments, "-o", "json", "-f", files],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=120,
        env={"HOME": "/nonexistent", "KUBECACHEDIR": "/dev/null"},
    )
    failures = _FAILED.findall(done.stderr.decode())
    assert done.returncode == 0 or failures or b"no objects passed" in done.stderr, done.stderr.decode()
    failed = frozenset(Path(name).name for name, reason in failures if not reason.startswith(_NO_KIND))
    return Seen(objects=decoded(done.stdout.decode()), failed=failed)


def decoded(text: str) -> list[Any]:
    """All values of a text that holds one after the other."""
    decoder, found, place = json.JSONDecoder(), [], 0
    while place < len(text):
        value, place = decoder.raw_decode(text, place)
        found.append(value)
        place += text.startswith("\n", place)
    return found


def written(directory: Path, inputs: Sequence[bytes]) -> Path:
    """A new directory with one file for each input, in that order."""
    directory.mkdir()
    for number, data in enumerate(inputs):
        (directory / f"{number:05}.yaml").write_bytes(data)
    return directory


def assert_same(objects: Iterable[Any], expected: Iterable[Any]) -> None:
    """The same values in the same order; 1, 1.0 and True are three, and the order of keys means nothing.

    It shows the first pair that differs, since pytest's comparison of thousands takes minutes.
    """
    pairs = zip_longest(*([json.dumps(item, sort_keys=True) for item in side] for side in (objects, expected)))
    different = next((pair for pair in pairs if pair[0] != pair[1]), None)
    assert different is None


def read(data: bytes) -> list[Any] | None:
    """What we read, or None when we refuse anything of it."""
    documents, problems = load_documents(data, source="input")
    return None if problems else [document.value for document in documents]


def printable(objects: list[Any]) -> bool:
    """Whether kubectl would print them all, and as they are."""
    return all(isinstance(item, dict) and item.get("kind") == "Case" and "items" not in item for item in objects)


def test_kubectl_reads_the_values_of_the_table(tmp_path: Path) -> None:
    inputs = [f"kind: Case\nvalue: {text}".encode() for text in VALUES]
    seen = kubectl(*_READ, files=written(tmp_path / "in", inputs))
    assert seen.failed == frozenset()
    assert_same(seen.objects, ({"kind": "Case", "value": normal(value)} for value in VALUES.values()))


def test_kubectl_reads_the_streams_of_the_table(tmp_path: Path) -> None:
    seen = kubectl(*_READ, files=written(tmp_path / "in", list(STREAMS)))
    assert seen.failed == frozenset()
    assert_same(seen.objects, chain.from_iterable(STREAMS.values()))


def test_kubectl_refuses_what_the_table_says_it_does(tmp_path: Path) -> None:
    seen = kubectl(*_READ, files=written(tmp_path / "in", [case.text for case in REFUSED]))
    assert seen.failed == {f"{number:05}.yaml" for number, case in enumerate(REFUSED) if case.kubectl_too}


@settings(max_examples=25)
@given(st.lists(values, min_size=20, max_size=60))
def test_kubectl_reads_what_we_write(batch: list[Any]) -> None:
    objects = [{"kind": "Case", "value": value} for value in batch]
    seen = kubectl(*_READ, files="-", stdin="---\n".join(map(dump, objects)).encode())
    assert_same(seen.objects, map(normal, objects))


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.sampled_from((*FRAGMENTS, *VALUES)), max_size=9).map("".join), min_size=200, max_size=300))
def test_what_we_accept_kubectl_reads_alike(tmp_path_factory: pytest.TempPathFactory, batch: list[str]) -> None:
    inputs = [f"kind: Case\nvalue: {text}".encode() for text in batch]
    ours = [(data, found) for data in inputs if (found := read(data)) is not None and printable(found)]
    directory = written(tmp_path_factory.mktemp("soup") / "in", [data for data, _ in ours])
    seen = kubectl(*_READ, files=directory)
    assert seen.failed == frozenset()
    assert_same(seen.objects, chain.from_iterable(found for _, found in ours))


# Kyverno's own source

#: It holds a policy twice without a separator, so that every key of it is there twice.
_TWICE = "test/conformance/chainsaw/mutating-policies/reporting/events-violation/policy.yaml"


def linked(directory: Path, files: Sequence[Path]) -> Path:
    """A new directory with a link to each file, in that order."""
    directory.mkdir()
    for number, path in enumerate(files):
        (directory / f"{number:05}.yaml").symlink_to(path)
    return directory


def is_object(item: Any) -> bool:
    """Whether kubectl takes it for an object: for that its labels and annotations must be texts."""
    if not isinstance(item, dict) or not isinstance(item.get("kind"), str):
        return False
    metadata = item.get("metadata") or {}
    marks = [mark for name in ("labels", "annotations") for mark in (metadata.get(name) or {}).values()]
    return all(isinstance(mark, str) for mark in marks)


def flat(objects: Iterable[Any]) -> Iterable[Any]:
    """What kubectl makes of lists: their items."""
    for item in objects:
        yield from item["items"] if isinstance(item.get("items"), list) else [item]


def test_kubectl_reads_every_file_of_kyverno_as_we_do(tmp_path: Path) -> None:
    source = toolchain.kyverno_source()
    ours = {path: read(path.read_bytes()) for path in corpus.files(source)}
    clean = {path: found for path, found in ours.items() if found is not None and all(map(is_object, found))}
    seen = kubectl(*_READ, files=linked(tmp_path / "clean", list(clean)))
    assert seen.failed == frozenset()
    assert_same(seen.objects, flat(chain.from_iterable(clean.values())))
    assert len(seen.objects) > 7000

    refused = [path for path, found in ours.items() if found is None]
    seen = kubectl(*_READ, files=linked(tmp_path / "refused", refused))
    read_by_kubectl = [path for number, path in enumerate(refused) if f"{number:05}.yaml" not in seen.failed]
    assert read_by_kubectl == [source / _TWICE]


@pytest.mark.cluster
def test_kubectl_creates_every_policy_of_kyverno_as_we_read_it(control_plane: ControlPlane, tmp_path: Path) -> None:
    served = {
        (version["groupVersion"], kind.name)
        for group in control_plane.api.call("GET", "/apis")["groups"]
        for version in group["versions"]
        for kind in KINDS
        if kind.group == group["name"]
    }
    policies: dict[Path, list[Any]] = {}
    for path in corpus.files(toolchain.kyverno_source()):
        found = read(path.read_bytes()) or []
        if found and all(is_object(item) and (item.get("apiVersion"), item["kind"]) in served for item in found):
            policies[path] = found
    seen = kubectl(
        *_CREATE,
        f"--kubeconfig={control_plane.kubeconfig}",
        files=linked(tmp_path / "policies", list(policies)),
    )
    assert seen.failed == frozenset()
    expected = list(chain.from_iterable(policies.values()))
    for item in (*seen.objects, *expected):
        # kubectl sets or removes it, as the kind's scope wants it.
        item["metadata"].pop("namespace", None)
    assert_same(seen.objects, expected)
    assert len(expected) > 1500
