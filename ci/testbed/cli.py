"""The commands `ci/tools` and `ci/cluster`: arguments, one call, an exit code."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import click
from rich.console import Console

from ci.testbed import browser, builder, paths, processes, toolchain
from ci.testbed.controlplane import ControlPlane, Part, down
from ci.testbed.directory import ClusterDirectory
from ci.testbed.toolchain import Tool
from renderer.errors import ExitCode, Failure, Interrupted

_CONSOLE: Final = Console(highlight=False, soft_wrap=True)
_directory = click.option(
    "--dir",
    "directory",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where everything of this one cluster lies.",
)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


@contextlib.contextmanager
def _progress(what: str, build_s: int) -> Iterator[None]:
    """Say that something long runs: a live line on a terminal, one plain line elsewhere."""
    estimate = f"about {duration(build_s)} on 2 cores"
    if not _CONSOLE.is_terminal:
        click.echo(f"{what} ({estimate})")
        yield
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=_CONSOLE, transient=True) as progress:
        progress.add_task(f"{what} ({estimate})", total=None)
        yield


def _ensure(tool: Tool) -> None:
    """Build the tool unless it is there, and link it; says what it did."""
    located = toolchain.located(tool)
    if located is None:
        began = time.monotonic()
        with contextlib.ExitStack() as stack:
            built = builder.build(
                tool,
                started=lambda: stack.enter_context(_progress(f"Building {tool.name} {tool.version}", tool.build_s)),
                waiting=lambda: click.echo(f"Waiting for another run that builds {tool.name}"),
            )
        located = tool.cached
        if built:
            click.echo(f"Built {tool.name} {tool.version} in {time.monotonic() - began:.0f} s")
    toolchain.replace_link(tool.link, located)


def _ensure_browser() -> None:
    """Find a browser or install one, and link it; says what it did."""
    located = browser.located()
    if located is None:
        with contextlib.ExitStack() as stack:
            located = browser.install(
                started=lambda: stack.enter_context(_progress("Installing Debian's Chromium, by apt-get", 30))
            )
        click.echo(f"Installed Chromium {browser.version(located)}")
    toolchain.replace_link(browser.LINK, located)


def _list() -> None:
    """Print what each tool's state is, without changing anything."""
    for tool in toolchain.TOOLS:
        located = toolchain.located(tool)
        state = "missing" if located is None else "cached" if located == tool.cached else "on PATH"
        linked = "" if located is None or tool.link.exists() else " (not linked)"
        click.echo(f"{tool.name:24} {tool.version:8} {state + linked:20} {located or ''}".rstrip())
    located = browser.located()
    state = "on PATH" if located else "missing"
    linked = "" if located is None or browser.LINK.exists() else " (not linked)"
    click.echo(f"{browser.NAME:24} {'any':8} {state + linked:20} {located or ''}".rstrip())


@click.command("ci/tools")
@click.option("--list", "only_list", is_flag=True, help="Show each tool, its version and where it is; build nothing.")
@click.argument("names", nargs=-1, metavar="[NAME]...", type=click.Choice((*toolchain.NAMES, browser.NAME)))
def tools(names: tuple[str, ...], only_list: bool) -> None:
    """Build the pinned tools that are missing, and link all of them into .toolchain/bin.

    With NAMEs, only those: etcd, kube-apiserver, kubectl, kyverno, kube-controller-manager, kube-scheduler,
    kwok, kyverno-controller, elector, chromium. Binaries are kept in the user's cache directory (XDG_CACHE_HOME),
    so nothing is built twice; one on PATH serves when it is exactly the pinned version. A first build of all takes
    12 to 16 minutes on 2 cores, and less where Go has built parts of it before. Go comes from PATH when it is new
    enough, else from .venv. chromium is any Chromium or Chrome on PATH; where there is none, and this is root on
    Debian, it is installed by apt-get.
    """
    if only_list:
        _list()
        return
    chosen = [tool for tool in toolchain.TOOLS if not names or tool.name in names]
    missing = [tool for tool in chosen if toolchain.located(tool) is None]
    if len(missing) > 1:
        total = duration(sum(tool.build_s for tool in missing))
        click.echo(f"{len(missing)} tools to build, once for this account: about {total} on 2 cores")
    for tool in chosen:
        _ensure(tool)
    if chosen:
        toolchain.kyverno_source()
        toolchain.kwok_stages()
    count = len(chosen)
    if not names or browser.NAME in names:
        _ensure_browser()
        count += 1
    click.echo(f"{count} tool{'' if count == 1 else 's'} ready in {paths.BINARIES}")


@click.group("ci/cluster")
def cluster() -> None:
    """Start and end a real Kubernetes control plane on the loopback, without containers.

    Always: etcd, kube-apiserver and Kyverno's CRDs. Several clusters run side by side, each with a directory
    of its own. The tools must be built (`ci/tools`).

    \b
      ci/cluster up --dir /tmp/c1 --with kyverno
      kubectl --kubeconfig /tmp/c1/kubeconfig get clusterpolicies
      ci/cluster down --dir /tmp/c1
    """


@cluster.command("up")
@_directory
@click.option(
    "--with",
    "parts",
    multiple=True,
    type=click.Choice([part.value for part in Part]),
    help="jobs: controller-manager, scheduler and kwok. kyverno: the admission controller. May be repeated.",
)
@click.option("--audit", is_flag=True, help="Write every request to DIR/audit.log.")
def up(directory: Path, parts: Sequence[str], audit: bool) -> None:
    """Start a cluster and return when all of it answers.

    DIR must be new, empty, or a former cluster's. Written there: kubeconfig (the administrator's),
    viewer.kubeconfig and worker.kubeconfig (accounts with only the rights that RBAC gives them), and logs.
    """
    plane = ControlPlane.start(
        directory, parts={Part(part) for part in parts}, audit=audit, outlive=True, report=click.echo
    )
    click.echo(f"Cluster up: {plane.server}")
    click.echo(f"  export KUBECONFIG={plane.kubeconfig}")
    click.echo(f"  ci/cluster down --dir {plane.directory.path}")


@cluster.command("down")
@_directory
@click.option("--keep-logs", is_flag=True, help="Leave DIR/logs.")
def down_command(directory: Path, keep_logs: bool) -> None:
    """End the cluster in DIR and remove what it wrote.

    Works after a crash too. Only processes that this cluster's `up` started are ended, and only its own files
    are removed. Nothing to do is no error.
    """
    ended = down(directory, keep_logs=keep_logs)
    click.echo(f"{ended} process{'' if ended == 1 else 'es'} ended." if ended else f"{directory}: nothing was up.")


@cluster.command("status")
@_directory
def status(directory: Path) -> None:
    """Show the cluster's processes; exits 69 unless all of them run."""
    state = ClusterDirectory(directory).read() if directory.exists() else None
    if state is None or not state.processes:
        click.echo(f"{directory}: no cluster is up.")
        sys.exit(ExitCode.UNAVAILABLE)
    running = {process.name: processes.is_running(process) for process in state.processes}
    for process in state.processes:
        click.echo(f"{process.name:24} {process.pid:>8}  {'running' if running[process.name] else 'gone'}")
    click.echo(f"{state.server}  parts: {' '.join(('base', *state.parts))}")
    if not (state.ready and all(running.values())):
        sys.exit(ExitCode.UNAVAILABLE)


def _terminated(_number: int, _frame: FrameType | None) -> None:
    raise Interrupted("Ended by SIGTERM.", code=ExitCode.TERMINATED)


def main(arguments: Sequence[str]) -> int:
    """Run `tools` or `cluster` with its arguments; returns the exit code, and prints one clear error."""
    command = {"tools": tools, "cluster": cluster}[arguments[0]]
    signal.signal(signal.SIGTERM, _terminated)
    try:
        command.main(list(arguments[1:]), prog_name=f"ci/{arguments[0]}", standalone_mode=False)
    except click.UsageError as error:
        error.show()
        return ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted; everything that was started has been ended.", err=True)
        return ExitCode.INTERRUPTED
    except Failure as failure:
        click.echo(f"Error: {failure}", err=True)
        return failure.code
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
