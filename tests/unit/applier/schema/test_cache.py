"""The cache of schemas: what was put comes back, and nothing that is wrong with it does any harm."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from applier.schema import cache as stored
from applier.schema.cache import SchemaCache

HASH = "0A" * 32
DOCUMENT = {"kinds": {"ClusterPolicy": {"type": "object"}}, "types": {}}
VERSION = "kyverno.io/v1"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "openapi"


def kept(place: Path) -> SchemaCache:
    cache = SchemaCache(place, form="1")
    cache.put(VERSION, HASH, DOCUMENT)
    return cache


def only_file(place: Path) -> Path:
    (path,) = place.iterdir()
    return path


def test_what_was_put_comes_back_and_is_private(place: Path) -> None:
    cache = kept(place)
    assert cache.get(VERSION, HASH) == DOCUMENT
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE(only_file(place).stat().st_mode) == 0o600


def test_another_version_hash_or_form_is_another_document(place: Path) -> None:
    cache = kept(place)
    assert cache.get("kyverno.io/v2", HASH) is None
    assert cache.get(VERSION, HASH[::-1]) is None
    assert SchemaCache(place, form="2").get(VERSION, HASH) is None


@pytest.mark.parametrize("hash_", ["", "short", "../" * 10, "/" * 20])
def test_without_a_proper_hash_nothing_is_kept(place: Path, hash_: str) -> None:
    cache = SchemaCache(place, form="1")
    cache.put(VERSION, hash_, DOCUMENT)
    assert not place.exists()
    assert cache.get(VERSION, hash_) is None


@pytest.mark.parametrize("cut", range(0, 110, 7))
def test_a_file_that_was_cut_off_is_not_read(place: Path, cut: int) -> None:
    cache = kept(place)
    data = only_file(place).read_bytes()
    assert cut < len(data)
    only_file(place).write_bytes(data[:cut])
    assert cache.get(VERSION, HASH) is None
    cache.put(VERSION, HASH, DOCUMENT)
    assert cache.get(VERSION, HASH) == DOCUMENT


def test_a_file_that_was_changed_is_not_read(place: Path) -> None:
    cache = kept(place)
    path = only_file(place)
    for changed in (path.read_bytes().replace(b"object", b"string"), b"\xff\xfe", b"{}"):
        path.write_bytes(changed)
        assert cache.get(VERSION, HASH) is None


def test_a_directory_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    cache = kept(tmp_path / "file" / "openapi")
    assert cache.get(VERSION, HASH) is None


def test_without_a_home_nothing_is_kept_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cache = kept(Path("~/.cache/openapi"))
    assert cache.get(VERSION, HASH) is None
    assert list(tmp_path.iterdir()) == []


def test_the_directory_is_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert stored.directory() == tmp_path / "on-demand-job-runner" / "openapi"


def test_the_oldest_are_forgotten(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "_KEPT", 3)
    cache = SchemaCache(place, form="1")
    hashes = [f"{number:032}" for number in range(5)]
    for age, hash_ in enumerate(hashes):
        cache.put(VERSION, hash_, DOCUMENT)
        for path in place.glob(f"*{hash_}*"):
            os.utime(path, ns=(age, age))
    assert [hash_ for hash_ in hashes if cache.get(VERSION, hash_)] == hashes[2:]


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_what_others_may_write_is_not_read(place: Path, mode: int) -> None:
    cache = kept(place)
    only_file(place).chmod(mode)
    assert cache.get(VERSION, HASH) is None


def test_what_another_account_wrote_is_not_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = kept(place)
    monkeypatch.setattr(os, "geteuid", lambda: only_file(place).stat().st_uid + 1)
    assert cache.get(VERSION, HASH) is None


def test_a_pipe_in_its_place_is_not_waited_for(place: Path) -> None:
    cache = kept(place)
    path = only_file(place)
    path.unlink()
    os.mkfifo(path)
    assert cache.get(VERSION, HASH) is None
