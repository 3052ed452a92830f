"""What the kyverno CLI said is kept, so that it is asked again only of what changed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

import pytest
from pytest_mock import MockerFixture

from applier.kyverno_cli import KyvernoCli
from applier.kyverno_cli import cache as cache_module
from applier.verdict import Verdict
from renderer.manifest import document, yamlio
from renderer.manifest.identity import Identity
from tests.support.cli_policies import (
    GLOBAL_CONTEXT,
    KYVERNO_V2,
    LABELLED,
    MATCH_CONDITIONS,
    SYNTAX,
    UNJUDGED,
    built_in,
    legacy,
    policy,
    rule,
    script,
    validating,
)
from tests.support.tools import tool

pytestmark = pytest.mark.tool


class Counted:
    """The real CLI behind a wrapper that writes down what it was asked to do."""

    def __init__(self, directory: Path, *, version: str = "") -> None:
        self._log = directory / "asked"
        says = [f'[ "$1" = version ] && echo "Version: {version}" && exit 0'] if version else []
        self.program = script(directory, f'echo "$*" >>{self._log}', *says, f'exec {tool("kyverno")} "$@"')

    def asked(self) -> list[list[str]]:
        """The arguments of each run since the last call."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        self._log.unlink(missing_ok=True)
        return [line.split() for line in lines]

    def judged(self) -> list[int]:
        """How many policies each run was given."""
        return [sum(word.startswith("::") for word in words) for words in self.asked() if words[0] == "apply"]


LASTING: Final = (
    legacy("fine", rule()),
    legacy("twice", rule(), rule()),
    validating("cel", LABELLED),
    validating("syntax", SYNTAX),
    policy("GlobalContextEntry", "pods", GLOBAL_CONTEXT, version=KYVERNO_V2),
    built_in("labelled", LABELLED),
    legacy("clustered", UNJUDGED[-1][0].body["spec"]["rules"][0]),
)


def said(verdict: Verdict) -> tuple[set[str], set[tuple[Identity, str]]]:
    return {str(finding.problem) for finding in verdict.findings}, set(verdict.unjudged)


def test_what_was_judged_is_not_judged_again(tmp_path: Path) -> None:
    counted = Counted(tmp_path)
    first = KyvernoCli(counted.program, cache=tmp_path / "cache").validate(LASTING)
    assert (len(first.findings), len(first.unjudged)) == (2, 2)
    assert sum(counted.judged()) >= len(LASTING)
    assert said(KyvernoCli(counted.program, cache=tmp_path / "cache").validate(LASTING)) == said(first)
    # A wrapper may run another version tomorrow, so that is asked.
    assert counted.asked() == [["version"]]


def test_the_program_itself_is_not_started_at_all(tmp_path: Path, mocker: MockerFixture) -> None:
    cache = tmp_path / "cache"
    first = KyvernoCli(tool("kyverno"), cache=cache).validate(LASTING)
    started = mocker.patch.object(subprocess, "Popen")
    assert said(KyvernoCli(tool("kyverno"), cache=cache).validate(LASTING)) == said(first)
    assert started.call_count == 0


def test_only_what_changed_is_judged_again(tmp_path: Path) -> None:
    counted = Counted(tmp_path)
    policies = [legacy(f"p{number}", rule()) for number in range(5)]
    KyvernoCli(counted.program, cache=tmp_path / "cache").validate(policies)
    assert counted.judged() == [5]
    policies[2] = legacy("p2", rule(), rule())
    (finding,) = KyvernoCli(counted.program, cache=tmp_path / "cache").validate(policies).findings
    assert finding.policy == policies[2].identity
    assert counted.judged() == [1]


def test_the_line_of_a_kept_finding_is_that_of_now(tmp_path: Path) -> None:
    text = (
        "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata: {name: one}\nspec:\n  background: maybe\n"
        "  rules: []\n"
    )
    lines = []
    for before in ("", "# a comment\n"):
        parsed, _ = document.parse(yamlio.load((before + text).encode(), source="p.yaml")[0])
        assert parsed is not None
        (finding,) = KyvernoCli(tool("kyverno"), cache=tmp_path).validate([parsed]).findings
        lines.append((finding.problem.line, finding.problem.field))
    assert lines == [(5, "spec.background"), (6, "spec.background")]


def test_a_crash_is_not_kept(tmp_path: Path) -> None:
    counted = Counted(tmp_path)
    crashing = legacy("panics", rule(), webhookConfiguration=MATCH_CONDITIONS)
    for _ in range(2):
        verdict = KyvernoCli(counted.program, cache=tmp_path / "cache").validate([crashing, legacy("fine", rule())])
        assert len(verdict.unjudged) == 1
    assert sum(counted.judged()) == 3


def test_another_version_is_asked_again(tmp_path: Path) -> None:
    for version in ("1.19.1", "1.19.2"):
        counted = Counted(tmp_path, version=version)
        KyvernoCli(counted.program, cache=tmp_path / "cache").validate([legacy("fine", rule())])
        assert counted.judged() == [1]


def test_another_build_is_asked_again(tmp_path: Path) -> None:
    counted = Counted(tmp_path, version="1.19.1")
    for _ in range(2):
        KyvernoCli(counted.program, cache=tmp_path / "cache").validate([legacy("fine", rule())])
    assert counted.judged() == [1]
    with counted.program.open("a") as file:
        file.write("# rebuilt\n")
    KyvernoCli(counted.program, cache=tmp_path / "cache").validate([legacy("fine", rule())])
    assert counted.judged() == [1]


def test_a_damaged_cache_is_as_good_as_none(tmp_path: Path) -> None:
    counted = Counted(tmp_path)
    cache = tmp_path / "cache"
    for damage in (b"", b"{}", b"\xff" * 100):
        KyvernoCli(counted.program, cache=cache).validate([legacy("fine", rule())])
        assert counted.judged() == [1]
        for path in cache.iterdir():
            path.write_bytes(damage)


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    cli = KyvernoCli(tool("kyverno"), cache=tmp_path / "file" / "cache")
    assert len(cli.validate([legacy("twice", rule(), rule())]).findings) == 1


def test_the_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_VERDICTS", 3)
    counted = Counted(tmp_path)
    policies = [legacy(f"p{number}", rule()) for number in range(5)]
    for _ in range(2):
        KyvernoCli(counted.program, cache=tmp_path / "cache").validate(policies)
    assert counted.judged() == [5, 2]
