"""Local policies: plain YAML, and templates that leave Kyverno's braces alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from renderer.errors import ConfigurationError, DocumentErrors, InputError
from renderer.local import Local, read_sources, read_values


def read(directory: Path, **values: Any) -> dict[str, str]:
    sources = read_sources(Local(directory=directory, values=values))
    return {Path(source.name).relative_to(directory).as_posix(): source.data.decode() for source in sources}


def failing(directory: Path, text: str, values: Mapping[str, Any] | None = None) -> str:
    (directory / "policy.yaml.j2").write_text(text)
    with pytest.raises(DocumentErrors) as caught:
        read(directory, **(values or {}))
    return str(caught.value)


def test_plain_files_stay_as_they_are_and_templates_get_values(tmp_path: Path) -> None:
    plain = "message: '{{ request.object }} [[ not a template ]]'\n"
    (tmp_path / "plain.yaml").write_text(plain)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "made.yml.j2").write_text(
        "[# for reviewers #]a: [[ registry ]]\n[% for n in names %]- {{ n }} {% raw %} {# x #} [[ n ]]\n[% endfor %]"
    )
    (tmp_path / "README.md").write_text("no policy")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "x.yaml").write_text("a: 1")
    assert read(tmp_path, registry="r.example", names=["x", "y"]) == {
        "deep/made.yml.j2": "a: r.example\n- {{ n }} {% raw %} {# x #} x\n- {{ n }} {% raw %} {# x #} y\n",
        "plain.yaml": plain,
    }


def test_a_value_that_is_missing_is_an_error_with_its_line(tmp_path: Path) -> None:
    message = failing(tmp_path, "a: 1\nb: [[ registry ]]\n")
    assert "policy.yaml.j2:2" in message
    assert "'registry' is undefined" in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [[ 'x' \n", "policy.yaml.j2:"),
        ("[% if %]", "broken"),
        ("\n[[ ''.__class__.__mro__[1].__subclasses__() ]]", "policy.yaml.j2:2"),
        ("[[ values.append(1) ]]", "policy.yaml.j2:1"),
        ("[% include 'other' %]", "policy.yaml.j2:1"),
        ("[[ 1 // 0 ]]", "policy.yaml.j2:1"),
        ("[% for i in range(10000000000) %][% endfor %]", "policy.yaml.j2:1"),
    ],
)
def test_a_template_that_is_broken_or_leaves_the_sandbox_is_an_error(tmp_path: Path, text: str, said: str) -> None:
    assert said in failing(tmp_path, text, {"values": []})


def test_all_templates_that_fail_are_in_one_report(tmp_path: Path) -> None:
    (tmp_path / "other.yaml.j2").write_text("[[ x ]]")
    assert failing(tmp_path, "[[ y ]]").count("is undefined") == 2


def test_a_directory_or_values_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no directory"):
        read(tmp_path / "missing")
    with pytest.raises(InputError, match="can't be read"):
        read_values(tmp_path / "missing")
    (tmp_path / "values.yaml").write_text("- a\n")
    with pytest.raises(InputError, match="not one YAML map"):
        read_values(tmp_path / "values.yaml")
    (tmp_path / "values.yaml").write_text("a: [1, 2]\n")
    assert read_values(tmp_path / "values.yaml") == {"a": [1, 2]}
    assert read_values(None) == {}
