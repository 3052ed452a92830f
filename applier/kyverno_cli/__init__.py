"""Has the kyverno CLI judge policies, and says what it thinks of each."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from applier.kyverno_cli import account, output
from applier.kyverno_cli.account import Batch, Probe
from applier.kyverno_cli.cache import VerdictCache
from applier.kyverno_cli.evaluation import evaluate
from applier.kyverno_cli.files import write
from applier.kyverno_cli.process import SKIP_HINT, KyvernoProcess, Printed, private_directory
from applier.ports import Account, Evaluation
from applier.verdict import Verdict
from renderer import logs
from renderer.errors import ConfigurationError
from renderer.manifest.document import Policy
from renderer.manifest.jsontypes import JsonObject

log = logs.get_logger()

_NOT_KNOWN: Final = (
    "What this version of the kyverno CLI prints is not known: what is not clear of a policy is left to the server"
)
_NAMES: Final = ("kyverno", "kubectl-kyverno")
# Each CEL error costs one more, and each crash as many as it takes to halve a batch down to one policy.
_MOST_RUNS: Final = 250
_TOO_MANY_RUNS: Final = f"the kyverno CLI was run {_MOST_RUNS} times and had not come to it"

# A kind that policies rarely match, so that they are loaded and compiled but not evaluated.
_LEASE: Final[JsonObject] = {
    "apiVersion": "coordination.k8s.io/v1",
    "kind": "Lease",
    "metadata": {"name": "probe", "namespace": "default"},
    "spec": {},
}
# What the copies that `account.probes` makes match; it has no image that could be looked up.
_POD: Final[JsonObject] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "probe", "namespace": "default"},
    "spec": {"containers": []},
}


class KyvernoCli:
    """A Validator: `kyverno apply` over all policies, with an account that each was loaded.

    `timeout_seconds` is for each process. One process gets at most `batch` policies with CEL (which is what
    bounds its memory, about 200 MB for 50), or eight times as many of kyverno.io.
    Verdicts are kept in the directory `cache`, if one is given. `runs` is how many processes the last `validate`
    took, but for the one that says the version.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        timeout_seconds: float = 120,
        batch: int = 50,
        cache: Path | None = None,
    ) -> None:
        self.process = KyvernoProcess(path=path or self.find(), timeout_seconds=timeout_seconds)
        self.batch = batch
        self.cache = VerdictCache(self.process.path, cache) if cache else None
        self.runs = 0

    @staticmethod
    def find(explicit: str = "") -> Path:
        """Find the CLI: the path that was given, else `kyverno`, else `kubectl-kyverno` on PATH.

        Raises ConfigurationError when there is none, or the path is no program.
        """
        if explicit:
            path = Path(explicit)
            if not path.is_file() or not os.access(path, os.X_OK):
                msg = f"The kyverno CLI was to be {explicit}, but that is not a program that can be run."
                raise ConfigurationError(msg, hint=f"Correct --kyverno or INSIGHTS_KYVERNO. {SKIP_HINT}")
            return path.absolute()
        for name in _NAMES:
            if found := shutil.which(name):
                return Path(found).absolute()
        raise ConfigurationError(
            "The kyverno CLI is not installed: neither kyverno nor kubectl-kyverno is on PATH.",
            hint="Install version 1.19, or say where it is with --kyverno or INSIGHTS_KYVERNO. " + SKIP_HINT,
        )

    def version(self) -> str:
        """Ask the CLI for its version, such as "1.19.1".

        Raises InvalidPolicies when it does not answer.
        """
        with private_directory() as directory:
            printed = self.process.run(["version"], directory)
        version = output.version(printed.stdout)
        if not version:
            self.process.fail("does not say its version", printed)
        return version

    def _usable_version(self) -> str:
        """Raises ConfigurationError for a version whose words can't be read."""
        version = self.version()
        if not output.is_readable(version):
            raise ConfigurationError(
                f"The kyverno CLI ({self.process.path}) is version {version}; "
                "no policy was validated and nothing was written.",
                hint=f"Install version 1.19, or a newer 1.x. {SKIP_HINT}",
            )
        return version

    def validate(self, policies: Sequence[Policy]) -> Verdict:
        """Judge all of them. What the CLI can't judge is in `unjudged`; nothing passes in silence.

        Raises ConfigurationError when the CLI cannot be started, and InvalidPolicies when it fails by itself:
        killed, too slow, too much output, or none that makes sense.
        """
        self.runs = 0
        if not policies:
            return Verdict()
        version = self.cache.open(self._usable_version) if self.cache else self._usable_version()
        if not output.is_seen(version):
            log.warning(_NOT_KNOWN, version=version)
        recalled, changed = self.cache.recall(policies) if self.cache else (Verdict(), list(policies))
        log.debug("Verdicts of the kyverno CLI", kept=len(policies) - len(changed), asked=len(changed))
        if not changed:
            return recalled
        with private_directory() as directory:
            verdict, loaded = self._load(changed, directory)
            verdict = Verdict.together([verdict, self._compile(loaded, directory)])
        if self.cache:
            self.cache.keep(changed, verdict)
        return Verdict.together([recalled, verdict])

    def evaluate(self, policy: Sequence[JsonObject], objects: Sequence[JsonObject], account: Account) -> Evaluation:
        """Evaluate one policy, with its bindings, on each of the objects; see `ports.Evaluator`.

        Raises as `validate` does.
        """
        with private_directory() as directory:
            return evaluate(self.process, directory, policy, objects, account)

    def _load(self, policies: Sequence[Policy], directory: Path) -> tuple[Verdict, list[Policy]]:
        """Run the CLI until each policy is settled; also answers those that it loaded without a complaint."""
        verdicts: list[Verdict] = []
        loaded: list[Policy] = []
        work: deque[Batch] = deque(account.batches(policies, self.batch))
        while work:
            batch = work.popleft()
            if self.runs >= _MOST_RUNS:
                verdicts.append(account.unjudged((policy for _, policy in batch), _TOO_MANY_RUNS))
                continue
            printed = self._apply({n: account.as_stored(policy) for n, policy in batch}, _LEASE, directory)
            reading = output.read(printed.stdout, printed.stderr)
            if not reading.makes_sense:
                self.process.fail("printed something that makes no sense", printed)
            step = account.settle(batch, reading)
            verdicts.append(step.verdict)
            loaded.extend(step.loaded)
            work.extendleft(step.again)
        return Verdict.together(verdicts), loaded

    def _compile(self, loaded: Iterable[Policy], directory: Path) -> Verdict:
        """Have the kinds compiled that the CLI compiles only where they match."""
        numbered = list(enumerate(probe for policy in loaded for probe in account.probes(policy)))
        verdicts: list[Verdict] = []
        work: deque[Sequence[tuple[int, Probe]]] = deque()
        work.extend(numbered[start : start + self.batch] for start in range(0, len(numbered), self.batch))
        while work:
            tried = work.popleft()
            if self.runs >= _MOST_RUNS:
                verdicts.append(account.unjudged((probe.policy for _, probe in tried), _TOO_MANY_RUNS))
                continue
            report = ("--policy-report", "--output-format=json")
            printed = self._apply({n: _renamed(probe, n) for n, probe in tried}, _POD, directory, *report)
            reading = output.read(printed.stdout, printed.stderr)
            verdict, again = account.settle_probes(tried, reading, output.results(printed.stdout))
            verdicts.append(verdict)
            work.extendleft(again)
        return Verdict.together(verdicts)

    def _apply(self, bodies: Mapping[int, JsonObject], probe: JsonObject, directory: Path, *flags: str) -> Printed:
        """Run `kyverno apply` with one file for each, and the sentinel that brackets what is said of it."""
        self.runs += 1
        arguments = ["apply"]
        for number, body in bodies.items():
            write(directory / output.file_name(number), body)
            arguments += [output.file_name(number), output.sentinel(number)]
        write(directory / "probe.yaml", probe)
        arguments += ["--resource=probe.yaml", "-v=3", "--remove-color", *flags]
        return self.process.run(arguments, directory)


def _renamed(probe: Probe, number: int) -> JsonObject:
    """Give the copy a name that is its own, whatever kinds and namespaces share its policy's."""
    metadata = account.as_stored(probe.policy)["metadata"] | {"name": account.probe_name(number)}
    return probe.body | {"metadata": metadata}
