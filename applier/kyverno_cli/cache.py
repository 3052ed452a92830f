"""Keeps what the kyverno CLI said of policies, so that it is asked again only of those that changed.

A verdict counts for the same bytes of the program, the same version, the same reading of its words and the same
content of the policy. The cluster's schemas have no part in it: the CLI has its own.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from applier.kyverno_cli import account, output
from applier.user_cache import UserCache
from applier.verdict import Finding, Layer, Verdict
from renderer.manifest.document import Policy
from renderer.manifest.jsontypes import JsonObject

#: How many programs are remembered; an upgrade makes one more.
_PROGRAMS: Final = 8
#: How many verdicts are kept of each, some 100 bytes each; the last used stay.
_VERDICTS: Final = 10_000
#: With the version of its form, so that no other version of ours reads it.
_PROGRAMS_FILE: Final = "programs-1.json"
# What Go writes into the program that was built from the CLI's source. Anything else may be a wrapper that runs
# another version tomorrow, so that it has to be asked each time.
_BUILD_INFO: Final = b"path\tgithub.com/kyverno/kyverno/cmd/cli/kubectl-kyverno\n"


class VerdictCache:
    """The verdicts of one program. It may be lost at any time, and never raises."""

    def __init__(self, program: Path, place: Path) -> None:
        """Keep them in that directory; nothing is read yet."""
        self._program = program
        self._files = UserCache(place, kept=_PROGRAMS + 1)
        self._file = ""
        self._verdicts: dict[str, JsonObject] = {}

    def open(self, ask: Callable[[], str]) -> str:
        """Find the verdicts of the program as it is now, and give its version, asking it only if need be."""
        known = self._files.get(_PROGRAMS_FILE) or {}
        state = _state(self._program)
        entry = known.get(str(self._program), {})
        if not state or entry.get("state") != state:
            digest, is_itself = _digest(self._program)
            entry = {"state": state, "digest": digest, "version": ask() if is_itself else ""}
            if state and digest:
                newest = list((known | {str(self._program): entry}).items())[-_PROGRAMS:]
                self._files.put(_PROGRAMS_FILE, dict(newest))
        version = str(entry["version"] or ask())
        parts = (entry["digest"], version, _reading())
        if all(parts):
            self._file = hashlib.sha256(" ".join(parts).encode()).hexdigest() + ".json"
            self._verdicts = self._files.get(self._file) or {}
        return version

    def recall(self, policies: Iterable[Policy]) -> tuple[Verdict, list[Policy]]:
        """What was said of those that have not changed, and the others."""
        verdicts: list[Verdict] = []
        others: list[Policy] = []
        for policy in policies:
            entry = self._verdicts.get(_key(policy))
            if entry is None:
                others.append(policy)
            else:
                verdicts.append(_verdict(policy, entry))
        return Verdict.together(verdicts), others

    def keep(self, policies: Sequence[Policy], verdict: Verdict) -> None:
        """Keep what the CLI would say again; not that it crashed, or that it could not be made out."""
        if not self._file:
            return
        passing = {identity for identity, reason in verdict.unjudged if not account.lasts(reason)}
        fresh = {_key(policy): _entry(policy, verdict) for policy in policies if policy.identity not in passing}
        # Another run may have kept some meanwhile.
        kept = {**(self._files.get(self._file) or {}), **fresh}
        self._files.put(self._file, dict(list(kept.items())[-_VERDICTS:]))


def _state(program: Path) -> list[int]:
    """What changes when the file does; [] when it can't be seen."""
    try:
        found = program.stat()
    except OSError:
        return []
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _digest(program: Path) -> tuple[str, bool]:
    """The digest of the program, "" when it can't be read, and whether it is the CLI itself and no wrapper."""
    try:
        with program.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return hashlib.sha256(data).hexdigest(), data.find(_BUILD_INFO) >= 0
    except (OSError, ValueError):
        return "", False


def _reading() -> str:
    """The digest of the code that reads the CLI's words: with other code, they may mean something else.

    "" where the code can't be read, so that nothing is kept.
    """
    try:
        code = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    except OSError:
        return ""
    return hashlib.sha256(b"\0".join(code)).hexdigest() if code else ""


def _key(policy: Policy) -> str:
    """The digest of what the CLI would be given."""
    text = json.dumps([str(policy.identity), account.as_stored(policy)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _entry(policy: Policy, verdict: Verdict) -> JsonObject:
    problems = [finding.problem for finding in verdict.findings if finding.policy == policy.identity]
    reasons = [reason for identity, reason in verdict.unjudged if identity == policy.identity]
    return {
        **({"errors": [[problem.field, problem.message] for problem in problems]} if problems else {}),
        **({"unjudged": reasons} if reasons else {}),
    }


def _verdict(policy: Policy, entry: JsonObject) -> Verdict:
    """The verdict again, with the lines that the policy's fields have now."""
    problems = [policy.problem(message, *output.path(field)) for field, message in entry.get("errors", ())]
    return Verdict(
        findings=tuple(Finding(policy=policy.identity, layer=Layer.CLI, problem=problem) for problem in problems),
        unjudged=tuple((policy.identity, reason) for reason in entry.get("unjudged", ())),
    )
