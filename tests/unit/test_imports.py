"""What the programs load: nothing that the command at hand does not use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from applier import cli as applier
from ci.testbed import paths
from renderer import cli as renderer

PROGRAMS: dict[str, click.Command] = {"applier.cli": applier.cli, "renderer.cli": renderer.cli}
SNAPSHOT = str(paths.ROOT / "policies" / "snapshot")
#: What work needs, and words about it do not.
HEAVY = {"kubernetes", "jinja2", "git", "requests", "urllib3", "jsonpatch", "renderer.gitrepo"}
#: One process runs one command line after the other, and tells what was loaded once each had ended.
RUNS = """
import contextlib, importlib, json, os, sys
main, loaded = importlib.import_module(sys.argv[1]).main, []
for words in json.loads(sys.argv[2]):
    sys.argv = ["program", *words]
    with open(os.devnull, "w") as nobody, contextlib.redirect_stdout(nobody), contextlib.redirect_stderr(nobody):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    loaded.append((code, sorted(sys.modules)))
print(json.dumps(loaded))
"""
#: Where nobody listens.
NOWHERE = "http://127.0.0.1:1"


def loaded(program: str, *lines: tuple[str, ...], **variables: str) -> list[tuple[int, set[str]]]:
    """For each command line its exit code, and the modules that it and those before it loaded."""
    done = subprocess.run(
        [sys.executable, "-c", RUNS, program, json.dumps(lines)],
        env={"PATH": "", "PYTHONPATH": str(paths.ROOT), **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    return [(code, set(modules)) for code, modules in json.loads(done.stdout)]


@pytest.mark.parametrize("program", ["applier.cli", "renderer.cli", "applier.entrypoint"])
def test_help_and_version_load_nothing_that_work_needs(program: str) -> None:
    command = PROGRAMS.get(program)
    names = list(command.commands) if isinstance(command, click.Group) else []
    lines = [("--version",), ("--help",), *((name, "--help") for name in names)]
    for line, (code, modules) in zip(lines, loaded(program, *lines), strict=True):
        assert (code, HEAVY & modules) == (0, set()), line


def test_a_plan_knows_how_plans_are_saved_only_when_it_saves_one() -> None:
    compared = ("plan", SNAPSHOT, "--against", SNAPSHOT)
    (code, modules), *_ = loaded("applier.cli", compared)
    assert (code, "applier.saved_plan" in modules, "kubernetes" in modules) == (0, False, False)


@pytest.mark.parametrize("words", [("plan", SNAPSHOT), ("apply", SNAPSHOT), ("sync",), ("run-jobs",)])
def test_no_command_loads_a_model_of_kubernetes(tmp_path: Path, words: tuple[str, ...]) -> None:
    # The runner would wait for its server as long as it takes: it is told no namespace.
    (code, modules), *_ = loaded(
        "applier.cli",
        words,
        KUBECONFIG=_kubeconfig(tmp_path),
        VALIDATE_POLICIES="false",
        FAIRWINDS_INSIGHTS_HOST=NOWHERE,
        FAIRWINDS_ORG="acme",
        FAIRWINDS_CLUSTER="prod",
        FAIRWINDS_TOKEN="token",
        HOST=NOWHERE,
        ORGANIZATION="acme",
        CLUSTER="prod",
        TOKEN="token",
    )
    assert code == (78 if words == ("run-jobs",) else 69)
    assert "kubernetes.client" in modules
    assert not [name for name in modules if name.startswith("kubernetes.client.models.")]


def _kubeconfig(directory: Path) -> str:
    path = directory / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
                "clusters": [{"name": "here", "cluster": {"server": NOWHERE}}],
                "users": [{"name": "me", "user": {}}],
            }
        )
    )
    return str(path)
