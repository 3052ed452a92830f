"""Building tools with the real Go, and the environment with the real `ci/install`."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ci.testbed import builder, golang, paths
from ci.testbed.toolchain import Module, Tool
from renderer.errors import RemoteError

_PATIENCE_S = 120
_MAIN = """\
package main

import "fmt"

var V = "none"

func main() { fmt.Println("small", V) }
"""
#: Builds the tool of `small` and says what came of it.
_BUILD = """\
import pathlib, sys
from ci.testbed import builder, paths
from ci.testbed.toolchain import Module, Tool
paths.MODULES = pathlib.Path(sys.argv[1])
module = Module(directory="small", path="example.com/pin")
tool = Tool(name="small", module=module, package="example.com/small", stamps=["main.V={version}"], build_s=1)
built = builder.build(tool, started=lambda: print("started", flush=True), waiting=lambda: None)
print("built" if built else "there already")
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """A tool that builds in a moment, with a cache of its own for what is built."""
    home = tmp_path / "modules" / "small"
    (home / "pin").mkdir(parents=True)
    (home / "main.go").write_text(_MAIN)
    (home / "pin" / "go.mod").write_text("module example.com/pin\n\ngo 1.26.0\n")
    (home / "go.mod").write_text(
        "module example.com/small\n\ngo 1.26.0\n\n"
        "require example.com/pin v1.2.3\n\nreplace example.com/pin v1.2.3 => ./pin\n"
    )
    (home / "go.sum").touch()
    variables = golang.find().variables()
    for name in ("GOCACHE", "GOMODCACHE"):  # these stay where they are, for speed
        monkeypatch.setenv(name, go_env(name, variables))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(paths.ROOT))
    monkeypatch.setattr(paths, "MODULES", tmp_path / "modules")
    module = Module(directory="small", path="example.com/pin")
    return Tool(name="small", module=module, package="example.com/small", stamps=["main.V={version}"], build_s=1)


def go_env(name: str, variables: dict[str, str]) -> str:
    command = [golang.find().command, "env", name]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout.strip()


def build(tool: Tool) -> bool:
    return builder.build(tool, started=lambda: None, waiting=lambda: None)


def building(tool: Tool) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _BUILD, str(tool.module.location.parent)], stdout=subprocess.PIPE, text=True
    )


def in_cache(tool: Tool) -> set[str]:
    return {entry.name for entry in tool.cached.parent.iterdir()}


@pytest.mark.tool
class TestBuilding:
    def test_builds_once_and_stamps_the_version(self, small: Tool) -> None:
        assert build(small)
        printed = subprocess.run([small.cached], capture_output=True, text=True, check=True).stdout
        assert printed == "small v1.2.3\n"
        assert not build(small)

    def test_two_runs_at_once_build_once(self, small: Tool) -> None:
        with building(small) as one, building(small) as two:
            outputs = sorted(run.communicate(timeout=_PATIENCE_S)[0] for run in (one, two))
        assert outputs == ["started\nbuilt\n", "there already\n"]

    def test_error_shows_the_compilers_words_and_leaves_no_binary(self, small: Tool) -> None:
        (small.module.location / "main.go").write_text("package main\n\nfunc main() { nonsense() }\n")
        with pytest.raises(RemoteError) as caught:
            build(small)
        assert "main.go:3:15: undefined: nonsense" in str(caught.value)
        assert in_cache(small) == {"lock", "build.log"}

    def test_interrupted_build_ends_the_compiler_too(
        self, small: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        started, script = tmp_path / "started", tmp_path / "compile"
        os.mkfifo(started)
        script.write_text(f'#!/bin/sh\ncase "$*" in *-V=full*) exec "$@";; esac\necho $$ >{started}\nexec sleep 600\n')
        script.chmod(0o755)
        monkeypatch.setenv("GOFLAGS", f"-toolexec={script}")  # a compiler that never ends
        with building(small) as run:
            compiler = os.pidfd_open(int(started.read_text().split()[0]))
            run.send_signal(signal.SIGINT)
            run.communicate(timeout=_PATIENCE_S)
            assert run.returncode == -signal.SIGINT
        poll = select.poll()
        poll.register(compiler, select.POLLIN)
        assert poll.poll(_PATIENCE_S * 1000), "the compiler still runs"
        os.close(compiler)


_BACKEND = """\
import pathlib, zipfile

def get_requires_for_build_editable(config_settings=None):
    return []

def build_editable(directory, config_settings=None, metadata_directory=None):
    name = "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(directory) / name, "w") as wheel:
        wheel.writestr("tiny.pth", str(pathlib.Path(__file__).parent))
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n")
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    return name
"""
_PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "tiny"
version = "1.0"
"""


def plant(root: Path) -> Path:
    """A project like ours as far as `ci/install` sees it, that needs nothing from the network."""
    (root / "ci").mkdir(parents=True)
    shutil.copy(paths.ROOT / "ci" / "install", root / "ci" / "install")
    (root / "ci" / "constraints.txt").write_text("# nothing\n")
    (root / "pyproject.toml").write_text(_PYPROJECT)
    (root / "backend.py").write_text(_BACKEND)
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with its environment, made by two runs at once, of which one did the work."""
    root = plant(tmp_path_factory.mktemp("made") / "a project")
    command = [str(root / "ci" / "install")]
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as one,
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as two,
    ):
        outputs = [run.communicate(timeout=_PATIENCE_S)[1] for run in (one, two)]
    assert (one.returncode, two.returncode) == (0, 0), outputs
    assert sorted("Making" in output for output in outputs) == [False, True]
    return root


def install(root: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(root / "ci" / "install")],
        cwd="/",
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=_PATIENCE_S,
    )


def mark(root: Path) -> Path:
    """A file in the environment, which is gone when that is made anew."""
    path = root / ".venv" / "mark"
    path.touch()
    return path


def project_in(root: Path) -> str:
    """Where the environment's Python finds the project."""
    command = [str(root / ".venv" / "bin" / "python"), "-c", "import backend; print(backend.__file__)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


class TestInstall:
    def test_project_is_in_the_environment_and_nothing_is_done_twice(self, made: Path) -> None:
        assert project_in(made) == str(made / "backend.py")
        assert install(made).stdout.startswith("Up to date")

    def test_changed_pins_are_brought_into_the_same_environment(self, made: Path) -> None:
        marked = mark(made)
        (made / "ci" / "constraints.txt").write_text("# nothing else\n")
        assert "Making the environment" in install(made).stderr
        assert marked.exists()

    def test_package_that_cannot_be_had_is_an_error_and_harms_nothing(self, made: Path) -> None:
        marked = mark(made)
        (made / "ci" / "constraints.txt").write_text(f"nothing==1.0 --hash=sha256:{'0' * 64}\n")
        failed = install(made, PIP_NO_INDEX="1", PIP_FIND_LINKS="")
        assert failed.returncode == 69
        assert failed.stderr.splitlines()[-1].startswith("Error: The packages could not be installed")
        (made / "ci" / "constraints.txt").write_text("# nothing\n")
        assert install(made).returncode == 0
        assert marked.exists()

    def test_environment_of_a_killed_run_is_made_anew(self, made: Path) -> None:
        marked = mark(made)
        (made / ".venv" / ".unfinished").touch()
        (made / ".venv" / "bin" / "python").unlink()
        assert install(made).returncode == 0
        assert not marked.exists()
        assert project_in(made) == str(made / "backend.py")

    @pytest.mark.parametrize(
        ("python", "said"),
        [("exit 1", "no python3"), ('[ "$1" = --version ] && echo Python 3.9.2; exit 1', "Python 3.9.2")],
    )
    def test_old_or_missing_python_is_one_clear_error(self, tmp_path: Path, python: str, said: str) -> None:
        tree = plant(tmp_path / "tree")
        bare = tmp_path / "bin"
        bare.mkdir()
        for name in ("sh", "dirname", "cat", "cksum", "mkdir", "rm"):
            (bare / name).symlink_to(str(shutil.which(name)))
        (bare / "python3").write_text(f"#!{shutil.which('sh')}\n{python}\n")
        (bare / "python3").chmod(0o755)
        failed = install(tree, PATH=str(bare))
        assert failed.returncode == 69
        (error,) = [line for line in failed.stderr.splitlines() if line.startswith("Error:")]
        assert "Python 3.11 or newer is needed" in error
        assert said in error
        assert not (tree / ".venv").exists()
