"""The options that several commands take: what each is called, and what --help says of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from applier.commands.watching import metrics_file_option
from renderer.commandline import Duration, option, options
from renderer.errors import ConfigurationError

if TYPE_CHECKING:
    from applier.selection import Pattern


class Patterns(click.ParamType["Pattern"]):
    """A pattern of --only or --exclude."""

    name = "pattern"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Pattern:
        """Read the text."""
        from applier.selection import Pattern

        try:
            return Pattern.of(str(value))
        except ConfigurationError as error:
            self.fail(error.message, param, ctx)


class Deletions(click.ParamType[str]):
    """How many deletions are ordinary, as --max-delete takes it."""

    name = "deletions"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the text, and leave it as it is."""
        from applier.guards.refusals import MaxDelete

        try:
            MaxDelete.of(str(value))
        except ConfigurationError as error:
            self.fail(error.message, param, ctx)
        return str(value)


cluster_options = options(
    option(
        "--kubeconfig",
        metavar="FILE",
        help="Kubeconfig; without it KUBECONFIG, ~/.kube/config or the pod's own account.",
    ),
    option("--context", metavar="NAME", help="Context of the kubeconfig."),
)
guard_options = options(
    option("--allow-empty", is_flag=True, help="Allow that no policy is wanted, which deletes every owned one."),
    option("--adopt", is_flag=True, help="Take over policies of the same identity that Insights does not own."),
    option("--allow-replace", is_flag=True, help="Allow to delete and create anew what can't be changed in place."),
    option(
        "--allow-self-block",
        is_flag=True,
        help="Allow policies that would, or might, deny this program's own next writes.",
    ),
    option(
        "--max-delete",
        type=Deletions(),
        metavar="N|P%",
        help="Allow that many deletions.  [default: 5 or 25%, whichever is more]",
    ),
)
weaken_option = option(
    "--allow-weaken", is_flag=True, help="Allow that policies which deny requests are deleted or loosened."
)
selection_options = options(
    option(
        "--only",
        multiple=True,
        type=Patterns(),
        metavar="KIND/NAME",
        help="Only these policies: KIND/NAME or KIND/NAMESPACE/NAME, with * and ?. May be given again; in the "
        "variable, separated by spaces.",
    ),
    option("--exclude", multiple=True, type=Patterns(), metavar="KIND/NAME", help="All but these; the same form."),
    option(
        "--prune",
        type=click.BOOL,
        metavar="BOOL",
        default=True,
        show_default=True,
        help="Delete owned policies that are no longer wanted.",
    ),
)
#: What decides which changes a plan holds and what it refuses: a saved plan records these, and they count.
planning_options = options(selection_options, guard_options, weaken_option)
kyverno_option = option("--kyverno", metavar="FILE", help="The kyverno CLI.  [default: kyverno on PATH]")
lock_namespace_option = option(
    "--lock-namespace", metavar="NAME", help="Namespace of the Lease.  [default: the pod's own, or insights-agent]"
)
validation_options = options(
    option(
        "--validate-policies/--no-validate-policies",
        default=True,
        show_default=True,
        help="Validate with the kyverno CLI; the server's own checks always run.",
    ),
    kyverno_option,
    option(
        "--validation-cache/--no-validation-cache",
        default=True,
        show_default=True,
        help="Ask the kyverno CLI only of policies that it has not judged before.",
    ),
)
warnings_option = option(
    "--warnings-as-errors", is_flag=True, help="Refuse a policy of which validation only warns (exit code 20)."
)
lock_options = options(
    lock_namespace_option,
    option(
        "--lock-file",
        type=click.Path(path_type=Path),
        help="File lock of this machine.  [default: /tmp/kyverno-policy-sync.lock]",
    ),
    option("--lock-wait", type=Duration(), default="30s", show_default=True, help="How long to wait for another run."),
    option(
        "--lock-timeout", type=Duration(), default="30m", show_default=True, help="How long this run may take at most."
    ),
    option(
        "--lease-duration",
        type=Duration(),
        default="15s",
        show_default=True,
        help="Advanced: for how long the Lease is good after a renewal. Renewals (2 of 15), the limit of work without "
        "one (10 of 15) and of each write (5 of 15) follow in proportion.",
    ),
)
journal_options = options(
    option(
        "--journal",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Keep journal and revisions in this directory, one for each cluster, instead of ConfigMaps in the lock's "
        "namespace. Then a run that died is recovered, and a rollback made, on this machine only.",
    ),
    option(
        "--journal-key",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Secret that signs journal and revisions, the same for every run.  [default: the token of Insights]",
    ),
)
pace_options = options(
    option("--delete-timeout", type=Duration(), default="30s", show_default=True, help="How long a deletion may take."),
    option(
        "--grace",
        type=Duration(),
        default="25s",
        show_default=True,
        help="How long an undo that fails is tried again. Keep it below the pod's own grace period.",
    ),
    option(
        "--concurrency",
        type=click.IntRange(1, 16),
        default=8,
        show_default=True,
        help="How many policies are written at a time.",
    ),
)
write_options = options(
    metrics_file_option,
    option("--dry-run", is_flag=True, help="Say what would be done; take no lock and write nothing."),
    lock_options,
    option(
        "--on-failure",
        type=click.Choice(["rollback", "continue", "stop"]),
        default="rollback",
        show_default=True,
        help="When a write fails: undo all, write what can be written, or leave it for `recover`.",
    ),
    pace_options,
    journal_options,
    option(
        "--keep-revisions",
        type=click.IntRange(0, 1000),
        default=10,
        show_default=True,
        help="How many revisions to keep for `rollback`; 0 keeps none.",
    ),
)
token_option = option(
    "--token-file", type=click.Path(path_type=Path), help="File that holds the token which signed the history."
)
snapshot_argument = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
