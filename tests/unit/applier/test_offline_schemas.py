"""The shipped and the kept schemas: they are read whole or not at all, and each wheel carries them."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from applier import offline_schemas
from applier.offline_schemas import FILE, SchemaSet
from applier.schema import defaults
from renderer.errors import InputError
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import KINDS
from tests.support.policies import admission_policy, cluster_policy, desired, validating_policy

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def shipped() -> SchemaSet:
    return offline_schemas.load()


def test_the_shipped_set_has_every_kind_in_every_version(shipped: SchemaSet) -> None:
    assert set(shipped.resources) == set(KINDS)
    for kind, resource in shipped.resources.items():
        assert resource.version in resource.served
        for version in resource.served:
            assert kind.name in shipped.documents[f"{kind.group}/{version}"]["kinds"]


def test_the_shipped_set_defaults_policies(shipped: SchemaSet) -> None:
    wanted = desired(cluster_policy(), validating_policy(), admission_policy())
    stored = defaults.default(wanted, shipped.resources, shipped.documents)
    assert (stored.verdict.findings, stored.missing, len(stored.bodies)) == ((), (), 3)
    first = next(body for identity, body in stored.bodies.items() if identity.kind.name == "ClusterPolicy")
    assert first["spec"]["emitWarning"] is False


def test_what_was_kept_comes_back_by_the_same_bytes(shipped: SchemaSet, tmp_path: Path) -> None:
    place = tmp_path / "some" / "where"
    offline_schemas.write(place, shipped)
    once = (place / FILE).read_bytes()
    assert offline_schemas.read(place) == shipped
    offline_schemas.write(place, shipped)
    assert (place / FILE).read_bytes() == once
    assert [path.name for path in place.iterdir()] == [FILE]


def test_the_order_of_what_is_kept_changes_no_byte(shipped: SchemaSet) -> None:
    turned = replace(
        shipped,
        resources=dict(sorted(shipped.resources.items(), reverse=True)),
        documents=dict(sorted(shipped.documents.items(), reverse=True)),
    )
    assert offline_schemas.encode(turned) == offline_schemas.encode(shipped)


@pytest.mark.parametrize("part", range(10))
def test_a_file_that_was_cut_off_is_refused(part: int, shipped: SchemaSet, tmp_path: Path) -> None:
    data = offline_schemas.encode(shipped)
    (tmp_path / FILE).write_bytes(data[: len(data) * part // 10])
    with pytest.raises(InputError, match=r"schemas can't be used.*\n.*--schema-cache"):
        offline_schemas.read(tmp_path)


@pytest.mark.parametrize("place", range(0, 100, 7))
def test_a_file_that_was_changed_is_refused(place: int, shipped: SchemaSet, tmp_path: Path) -> None:
    data = bytearray(offline_schemas.encode(shipped))
    data[-1 - place * (len(data) - 20) // 100] ^= 0x10
    (tmp_path / FILE).write_bytes(data)
    with pytest.raises(InputError, match="schemas can't be used"):
        offline_schemas.read(tmp_path)


@pytest.mark.parametrize(
    ("whole", "why"),
    [
        ([], "damaged"),
        ({}, "another version of this program"),
        ({"form": "0"}, "another version of this program"),
        ({"form": defaults.FORM}, "not what this program writes"),
        ({"form": defaults.FORM, "origin": "", "resources": {}, "documents": {"a/v1": {}}}, "not what this program"),
        ({"form": defaults.FORM, "origin": "", "resources": {"a.b": {}}, "documents": {}}, "not what this program"),
    ],
)
def test_what_is_no_set_is_refused(whole: JsonObject, why: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(gzip.compress(json.dumps(whole).encode()))
    with pytest.raises(InputError, match=why):
        offline_schemas.read(tmp_path)


def test_where_nothing_was_kept_it_says_how_to(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No such file.*\n.*insights-applier validate DIR --schema-cache"):
        offline_schemas.read(tmp_path)


def test_a_place_that_cannot_be_written_is_said(shipped: SchemaSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(InputError, match="can't be kept there"):
        offline_schemas.write(tmp_path / "file" / "schemas", shipped)


def test_a_wheel_carries_the_set_and_its_notice(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (wheel,) = tmp_path.iterdir()
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"applier/schemas/{name}" for name in (FILE, "NOTICE")} <= set(names)
