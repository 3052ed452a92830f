"""The Go toolchain: finding one that is new enough, and running it so that it fetches no other."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ci.testbed import paths
from renderer.errors import RemoteError
from renderer.manifest.jsontypes import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """A `go` command and what its environment must say."""

    command: str
    version: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def variables(self) -> dict[str, str]:
        """The environment to run it in: static binaries, no other toolchain, no workspace of the caller's."""
        fixed = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
        return {**os.environ, **fixed, **self.environment}


def version_tuple(version: str) -> tuple[int, ...]:
    """The numbers of `go1.26.6` or `1.26.6`; empty when there are none."""
    found = re.search(r"(?:^|go)(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()


def required() -> str:
    """The oldest Go that all the pinned modules accept, as their go.mod files say."""
    lines = [re.search(r"(?m)^go (\S+)", (module / "go.mod").read_text()) for module in paths.MODULES.iterdir()]
    return max((line.group(1) for line in lines if line), key=version_tuple)


def find() -> Go:
    """Go from PATH, else from the project's own environment; RemoteError when neither is new enough."""
    needed = required()
    seen = []
    for candidate in _candidates():
        version = _version(candidate)
        if version_tuple(version) >= version_tuple(needed):
            return Go(command=candidate.command, version=version, environment=candidate.environment)
        seen.append(f"{candidate.command} is {version or 'not usable'}")
    raise RemoteError(
        f"Go {needed} or newer is needed to build the tools.",
        details=seen,
        hint="Run `ci/install`, which brings one, or put a newer `go` on PATH.",
    )


def _candidates() -> list[Go]:
    found = []
    if on_path := shutil.which("go"):
        found.append(Go(command=on_path, version=""))
    package = importlib.util.find_spec("go")
    for root in (package.submodule_search_locations or []) if package else []:
        command = Path(root) / "bin" / "go"
        if command.exists():
            found.append(Go(command=str(command), version="", environment={"GOROOT": root}))
    return found


def _version(go: Go) -> str:
    try:
        answer = subprocess.run(
            [go.command, "env", "GOVERSION"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env=go.variables(),
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()


def module_source(go: Go, directory: Path, module: str) -> Path:
    """The source of a module that the module in `directory` requires, fetched now if the cache lacks it.

    Go checks it against go.sum. Raises RemoteError when it can't be fetched.
    """
    try:
        answer = subprocess.run(
            [go.command, "mod", "download", "-json", module],
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
            env=go.variables(),
        )
        document: JsonObject = json.loads(answer.stdout) if answer.stdout.strip() else {}
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise RemoteError(f"{module}: `go mod download` did not work ({error}).") from error
    if "Dir" not in document:
        reason = document.get("Error") or answer.stderr.strip() or "no reason given"
        raise RemoteError(
            f"{module}: its source can't be fetched.",
            details=str(reason).splitlines()[-5:],
            hint="It comes from a Go module proxy (see `go env GOPROXY`); check the network, then run again.",
        )
    return Path(document["Dir"])
