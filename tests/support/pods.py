"""Runs a program as the chart's pods do: user 1200, nothing writable but mounts, no capabilities, little memory.

There is no container engine here: a mount namespace with a root of its own (a read-only tmpfs with the system's folders
bound into it) and a memory cgroup give the program the same surroundings. Only root may make them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from tests.support.tools import TOOLCHAIN

USER: Final = 1200
MIB: Final = 1024 * 1024
PLACES: Final = ("/tmp", "/output", "/dev/shm")
_SECONDS: Final = 240
_REPOSITORY: Final = Path(__file__).resolve().parents[2]
_SYSTEM: Final = ("usr", "bin", "sbin", "lib", "lib64", "etc", "proc")
_DEVICES: Final = ("null", "zero", "random", "urandom")
#: $1 is an empty directory for the root; then follow the places that can be written (with + before them), the folders
#: to bind into it, and the account's directory (with @); after --, the program.
_SCRIPT: Final = """
root=$1; shift
mount -t tmpfs -o mode=755 none "$root"
into() { mkdir -p "$root/${1%/*}"; if [ -d "$1" ]; then mkdir -p "$root$1"; else : > "$root$1"; fi
         mount --rbind "$1" "$root$1"; }
mkdir -p "$root/dev/shm" "$root/tmp" "$root/output" "$root/run/secrets/kubernetes.io/serviceaccount" "$root/var"
ln -s ../run "$root/var/run"
while [ "$1" != -- ]; do
    case $1 in
        +*) mount -t tmpfs -o mode=1777,size=256m none "$root${1#+}" ;;
        @*) mount --bind "${1#@}" "$root/run/secrets/kubernetes.io/serviceaccount" ;;
        *) into "$1"; case $1 in /dev/* | /proc) ;; *) mount -o remount,bind,ro "$root$1" ;; esac ;;
    esac
    shift
done
shift
mount -o remount,ro "$root"
exec chroot "$root" setpriv --reuid=1200 --regid=1200 --clear-groups --no-new-privs --inh-caps=-all \
    --bounding-set=-all -- env --chdir=/ "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a program ended, and the most memory (bytes) that it and its children had at once."""

    code: int
    shown: str
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """What the program gets: its environment, its account's directory, what it may write to, and memory (bytes)."""

    directory: Path
    environment: Mapping[str, str]
    account: Path
    memory_bytes: int
    writable: Collection[str] = ("/tmp", "/output")

    def run(self, *command: str) -> Ended:
        """Run it to its end."""
        log = self.directory / "pod.log"
        with log.open("w") as stream, self.started(stream, *command) as (process, memory):
            code = process.wait(_SECONDS)
            return Ended(code=code, shown=log.read_text(), peak_bytes=memory.peak_bytes())

    @contextmanager
    def started(self, stream: IO[str], *command: str) -> Iterator[tuple[subprocess.Popen[str], Memory]]:
        """Start it; what it prints goes to the stream. It is gone when the block ends."""
        assert os.geteuid() == 0, "only root may make the namespace and the cgroup of a pod: run these tests as root"
        root = self.directory / f"root-{uuid.uuid4().hex[:8]}"
        root.mkdir()
        program = Path(sys.prefix) / "bin" / command[0]
        path = f"{sys.prefix}/bin:{TOOLCHAIN / 'bin'}:/usr/bin:/bin"
        variables = [f"{name}={value}" for name, value in {"PATH": path, **self.environment}.items()]
        with _memory(self.memory_bytes) as memory:
            process = subprocess.Popen(
                [
                    *memory.entering,
                    *("unshare", "--mount", "--propagation", "private", "sh", "-euc", _SCRIPT, "sh", str(root)),
                    *(f"+{place}" for place in self.writable),
                    # After those: the project may lie in /tmp.
                    *_bound(),
                    f"@{self.account}",
                    "--",
                    *("-i", *variables, str(program), *command[1:]),
                ],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                text=True,
            )
            try:
                yield process, memory
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()


def _bound() -> list[str]:
    """The system's folders, and where Python, the project and the tools are."""
    kyverno = (TOOLCHAIN / "bin" / "kyverno").resolve()
    ours = [_REPOSITORY, Path(sys.prefix), Path(sys.base_prefix), kyverno.parent]
    found = [Path("/", name) for name in _SYSTEM] + [Path("/dev", name) for name in _DEVICES]
    found += [path for path in dict.fromkeys(ours) if not any(path.is_relative_to(f"/{name}") for name in _SYSTEM)]
    apart = [path for path in found if not any(path != other and path.is_relative_to(other) for other in found)]
    return [str(path) for path in apart if path.exists()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A cgroup: `entering` is the command that runs another one in it."""

    entering: tuple[str, ...]
    peak: Path

    def peak_bytes(self) -> int:
        """The most that was in use at once, cached files too; what exceeds the limit is killed, and fails its run."""
        return int(self.peak.read_text())


@contextmanager
def _memory(limit_bytes: int) -> Iterator[Memory]:
    parent, limit, peak = _controller()
    group = parent / f"pod-{uuid.uuid4().hex[:8]}"
    group.mkdir()
    try:
        (group / limit).write_text(str(limit_bytes))
        enter = ("sh", "-euc", 'echo $$ > "$0"; exec "$@"', str(group / "cgroup.procs"))
        yield Memory(entering=enter, peak=group / peak)
    finally:
        group.rmdir()


def _controller() -> tuple[Path, str, str]:
    """Where a memory cgroup can be made, and how limit and peak are called there: version 1 or 2."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return Path("/sys/fs/cgroup/memory" + path), "memory.limit_in_bytes", "memory.max_usage_in_bytes"
    return Path("/sys/fs/cgroup"), "memory.max", "memory.peak"
