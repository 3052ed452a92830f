"""Evaluates one policy on objects with the kyverno CLI, as if an account created them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from applier.kyverno_cli import output
from applier.kyverno_cli.files import write
from applier.kyverno_cli.process import KyvernoProcess
from applier.ports import Account, Evaluated, Evaluation
from renderer.manifest.jsontypes import JsonObject


def evaluate(
    process: KyvernoProcess,
    directory: Path,
    policy: Sequence[JsonObject],
    objects: Sequence[JsonObject],
    account: Account,
) -> Evaluation:
    """What the policy, with its bindings, says of each object; not judged unless the CLI says that it loaded all.

    Raises as `KyvernoProcess.run`.
    """
    arguments = ["apply"]
    for number, body in enumerate(policy):
        write(directory / output.file_name(number), body)
        arguments += [output.file_name(number), output.sentinel(number)]
    write(directory / "objects.yaml", *objects)
    write(directory / "account.yaml", _user_info(account))
    arguments += ["--resource=objects.yaml", "--userinfo=account.yaml", "--policy-report", "--output-format=json"]
    printed = process.run([*arguments, "-v=3", "--remove-color"], directory)
    reading = output.read(printed.stdout, printed.stderr)
    results = tuple(
        Evaluated(outcome=row.outcome, message=row.message, resource=row.resource)
        for row in output.results(printed.stdout)
    )
    reason = _unjudged(reading, len(policy))
    return Evaluation(results=results, judged=not reason, reason=reason)


def _user_info(account: Account) -> JsonObject:
    return {
        "apiVersion": "cli.kyverno.io/v1alpha1",
        "kind": "UserInfo",
        "metadata": {"name": "account"},
        "userInfo": {"username": account.name, "groups": list(account.groups)},
    }


def _unjudged(reading: output.Reading, files: int) -> str:
    """Why the run does not tell, "" when it does."""
    if reading.crash:
        return f"the kyverno CLI crashes on it ({reading.crash})"
    refusals = [*reading.dropped.values(), *(refusal.reason for refusal in reading.skipped)]
    if reading.compile_error:
        refusals.append(reading.compile_error.reason)
    if refusals or reading.other_error:
        return f"the kyverno CLI says: {output.explain((refusals or [reading.other_error])[0])[1]}"
    if reading.visited != frozenset(range(files)):
        return "the kyverno CLI did not say that it loaded it"
    return ""
