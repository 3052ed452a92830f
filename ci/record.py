"""Records the README's terminal session: `ci/record`. What no two runs share, such as ports and times, is left out."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from applier.cluster.connection import Connection
from ci.demo import CLUSTER, LOCK_NAMESPACE, ORGANIZATION, REVIEWED
from ci.testbed import corpus, paths
from ci.testbed.controlplane import ControlPlane
from tests.support.insights import InsightsStandIn

SESSION: Final = paths.ROOT / ".github" / "session.svg"
_SOURCES: Final = paths.ROOT / "policies" / "sources"
_COLUMNS: Final = 110
#: What Insights has in the beginning; then what `REVIEWED` says changes.
_FOLDERS: Final = ("namespaces", "network", "pod-security")
#: The commands, and the exit code of each.
_COMMANDS: Final = (
    ("insights-renderer render --out policies/prod", 0),
    ("insights-applier plan policies/prod", 2),
    ("insights-applier apply policies/prod --allow-weaken", 0),
    ("insights-applier plan policies/prod", 0),
)


def answer(*, changed: bool) -> str:
    """The policies as Insights would send them, before or after the change."""
    texts = {path.relative_to(_SOURCES).as_posix(): path.read_text() for path in _files()}
    for name, old, new in REVIEWED if changed else ():
        texts[name] = texts[name].replace(old, new)
    return "---\n".join(texts.values())


def _files() -> list[Path]:
    return sorted(path for folder in _FOLDERS for path in (_SOURCES / folder).glob("*.yaml"))


def cleaned(output: str) -> str:
    """The output without what is this machine's or this moment's."""
    output = re.sub(r"https://127\.0\.0\.1:\d+", "https://cluster.example:6443", output)
    return re.sub(r" in [\d.]+(ms|s|m[\d.]*s?)(?=:)", "", output)


def drawn(session: str) -> str:
    """The session, with its colours, as one SVG that fetches nothing; the same for the same session."""
    console = Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(session), soft_wrap=False)
    svg = console.export_svg(title="On-Demand Job Runner", unique_id="session")
    # rich's template names fonts on the net, and falls back to the reader's own.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE).rstrip() + "\n"


def record(place: Path) -> str:
    """Run the commands where the cluster holds the policies as they were, and give all that a person would see."""
    plane = ControlPlane.start(place / "cluster")
    try:
        with InsightsStandIn(token="demo-token", organization=ORGANIZATION, clusters=[CLUSTER]) as insights:  # noqa: S106 - of this session
            corpus.ensure_namespace(Connection.open(kubeconfig=str(plane.kubeconfig)), LOCK_NAMESPACE)
            environment = {
                "PATH": f"{paths.BINARIES}{os.pathsep}{os.defpath}",
                "HOME": str(place),
                "KUBECONFIG": str(plane.kubeconfig),
                "FAIRWINDS_INSIGHTS_HOST": insights.url,
                "FAIRWINDS_ORG": ORGANIZATION,
                "FAIRWINDS_CLUSTER": CLUSTER,
                "FAIRWINDS_TOKEN": insights.token,
                "INSIGHTS_LOCK_FILE": str(place / "lock"),
                "LOG_LEVEL": "error",
                "FORCE_COLOR": "1",
            }
            for changed in (False, True):
                insights.publish(CLUSTER, answer(changed=changed))
                if not changed:
                    _run(_COMMANDS[0][0], 0, place, environment)
                    _run("insights-applier apply policies/prod", 0, place, environment)
            parts = [f"\x1b[1m$ {line}\x1b[0m\n{_run(line, code, place, environment)}" for line, code in _COMMANDS]
    finally:
        plane.stop()
    return cleaned("\n".join(parts))


def _run(line: str, code: int, place: Path, environment: dict[str, str]) -> str:
    program, *arguments = line.split()
    done = subprocess.run(
        [str(Path(sys.executable).parent / program), *arguments],
        env=environment,
        cwd=place,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != code:
        raise SystemExit(f"`{line}` exited with {done.returncode} instead of {code}:\n{done.stdout}")
    return done.stdout


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="session-") as directory:
        SESSION.write_text(drawn(record(Path(directory))), encoding="utf-8")
    print(SESSION)
