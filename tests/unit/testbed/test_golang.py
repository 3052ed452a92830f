"""Which Go is new enough."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ci.testbed import golang


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("go1.26.6", (1, 26, 6)),
        ("1.26.6", (1, 26, 6)),
        ("go1.27", (1, 27)),
        ("go1.27rc1", (1, 27)),
        ("devel go1.28-abcdef", (1, 28)),
        ("", ()),
        ("gofmt", ()),
    ],
)
def test_versions_are_read(text: str, numbers: tuple[int, ...]) -> None:
    assert golang.version_tuple(text) == numbers


def test_versions_compare_as_numbers() -> None:
    assert golang.version_tuple("go1.9.9") < golang.version_tuple("go1.26.6") < golang.version_tuple("go1.26.10")


def test_required_version_is_the_highest_of_the_modules() -> None:
    assert golang.version_tuple(golang.required()) >= (1, 26, 6)


def test_go_of_the_environment_serves_where_path_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = golang.find()
    assert Path(found.command).is_relative_to(sys.prefix)
    assert golang.version_tuple(found.version) >= golang.version_tuple(golang.required())


def test_old_go_on_path_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "go"
    old.write_text("#!/bin/sh\necho go1.21.0\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert golang.find().command != str(old)
