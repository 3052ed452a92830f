"""The pinned tools: what each is built from, where it is kept, and which are missing."""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ci.testbed import golang, paths

_KWOK_STAGES: Final = (
    "node/fast/node-initialize",
    "node/heartbeat-with-lease/node-heartbeat-with-lease",
    "pod/fast/pod-ready",
    "pod/fast/pod-complete",
    "pod/fast/pod-delete",
    "pod/chaos/pod-container-running-failed",  # for pods whose label asks for it
)
_BUILD_FLAGS: Final = ("-trimpath", "-mod=readonly", "-buildvcs=false")
_STRIPPED: Final = "-s -w"


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A directory of ci/toolchain, and the module in it that gives its tools their version."""

    directory: str
    path: str

    @property
    def location(self) -> Path:
        """Where its go.mod and go.sum lie."""
        return paths.MODULES / self.directory

    @property
    def version(self) -> str:
        """The pinned version, such as `v1.36.3`, as go.mod says."""
        found = re.search(
            rf"(?m)^\s*(?:require )?{re.escape(self.path)} (v\S+)", (self.location / "go.mod").read_text()
        )
        if not found:
            raise LookupError(f"{self.location / 'go.mod'} does not require {self.path}")
        return found.group(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A binary that is built here: `stamps` are the variables that get its version when it is linked.

    `asks` are the arguments that make it print its version, if it can. `build_s` is what a build took with
    empty caches on two cores, the tools before it in the list already built.
    """

    name: str
    module: Module
    package: str
    stamps: Sequence[str] = ()
    asks: Sequence[str] = ()
    build_s: int

    @property
    def version(self) -> str:
        """The pinned version without its `v`."""
        return self.module.version.removeprefix("v")

    def linker_flags(self) -> str:
        """What `-ldflags` gets."""
        return " ".join([_STRIPPED, *(f"-X {stamp}" for stamp in _filled(self.stamps, self.module.version))])

    def build_command(self, go: str, output: Path) -> list[str]:
        """The command that builds it into `output`, to be run in the module's directory."""
        return [
            go,
            "build",
            *_BUILD_FLAGS,
            "-ldflags",
            self.linker_flags(),
            "-o",
            str(output),
            self.package,
        ]

    def key(self) -> str:
        """Names this very build in the cache: the module's pins and own source, the flags and the machine's kind."""
        digest = hashlib.sha256()
        location = self.module.location
        for file in (location / "go.mod", location / "go.sum", *sorted(location.glob("*.go"))):
            digest.update(file.read_bytes() + b"\0")
        for word in (*self.build_command("go", Path("out")), platform.system(), platform.machine()):
            digest.update(word.encode() + b"\0")
        return digest.hexdigest()[:16]

    @property
    def cached(self) -> Path:
        """Where its binary is kept for every clone."""
        return paths.cache() / "tools" / f"{self.name}-{self.version}-{self.key()}" / self.name

    @property
    def link(self) -> Path:
        """Where the project looks for it."""
        return paths.BINARIES / self.name


def _filled(stamps: Sequence[str], version: str) -> list[str]:
    major, minor, *_ = version.removeprefix("v").split(".")
    return [stamp.format(version=version, major=major, minor=minor) for stamp in stamps]


ETCD: Final = Module(directory="etcd", path="go.etcd.io/etcd/server/v3")
KUBERNETES: Final = Module(directory="k8s", path="k8s.io/kubernetes")
KWOK: Final = Module(directory="kwok", path="sigs.k8s.io/kwok")
KYVERNO: Final = Module(directory="kyverno", path="github.com/kyverno/kyverno")
ELECTOR: Final = Module(directory="elector", path="k8s.io/client-go")
ACTIONLINT: Final = Module(directory="actionlint", path="github.com/rhysd/actionlint")


def _kubernetes_stamps(package: str) -> list[str]:
    values = {
        "gitVersion": "{version}",
        "gitMajor": "{major}",
        "gitMinor": "{minor}",
        "gitTreeState": "clean",
    }
    return [f"{package}.{name}={value}" for name, value in values.items()]


_COMPONENT_STAMPS: Final = _kubernetes_stamps("k8s.io/component-base/version")
_CLIENT_STAMPS: Final = _kubernetes_stamps("k8s.io/client-go/pkg/version")
_KYVERNO_STAMPS: Final = ("github.com/kyverno/kyverno/pkg/version.BuildVersion={version}",)

#: In the order of need, and so of building.
TOOLS: Final[tuple[Tool, ...]] = (
    Tool(name="etcd", module=ETCD, package=ETCD.path, asks=["--version"], build_s=75),
    Tool(
        name="kube-apiserver",
        module=KUBERNETES,
        package="k8s.io/kubernetes/cmd/kube-apiserver",
        stamps=_COMPONENT_STAMPS,
        asks=["--version"],
        build_s=320,
    ),
    Tool(
        name="kubectl",
        module=KUBERNETES,
        package="k8s.io/kubernetes/cmd/kubectl",
        stamps=[*_COMPONENT_STAMPS, *_CLIENT_STAMPS],
        asks=["version", "--client"],
        build_s=25,
    ),
    Tool(
        name="kyverno",
        module=KYVERNO,
        package=f"{KYVERNO.path}/cmd/cli/kubectl-kyverno",
        stamps=_KYVERNO_STAMPS,
        asks=["version"],
        build_s=330,
    ),
    Tool(
        name="kube-controller-manager",
        module=KUBERNETES,
        package="k8s.io/kubernetes/cmd/kube-controller-manager",
        stamps=_COMPONENT_STAMPS,
        asks=["--version"],
        build_s=60,
    ),
    Tool(
        name="kube-scheduler",
        module=KUBERNETES,
        package="k8s.io/kubernetes/cmd/kube-scheduler",
        stamps=_COMPONENT_STAMPS,
        asks=["--version"],
        build_s=10,
    ),
    Tool(
        name="kwok",
        module=KWOK,
        package=f"{KWOK.path}/cmd/kwok",
        stamps=["sigs.k8s.io/kwok/pkg/consts.Version={version}"],
        asks=["--version"],
        build_s=70,
    ),
    Tool(
        name="kyverno-controller",
        module=KYVERNO,
        package=f"{KYVERNO.path}/cmd/kyverno",
        stamps=_KYVERNO_STAMPS,
        build_s=75,
    ),
    Tool(name="elector", module=ELECTOR, package="toolchain/elector", build_s=5),
    Tool(
        name="actionlint",
        module=ACTIONLINT,
        package=f"{ACTIONLINT.path}/cmd/actionlint",
        stamps=[f"{ACTIONLINT.path}.version={{version}}"],
        asks=["-version"],
        build_s=25,
    ),
)
NAMES: Final = tuple(tool.name for tool in TOOLS)


def states_version(output: str, version: str) -> bool:
    """True when a version command's output names exactly `version`, with or without a `v`."""
    return re.search(rf"(?<![\w.])v?{re.escape(version)}(?![\w.+-])", output) is not None


def on_path(tool: Tool) -> Path | None:
    """A binary on PATH that says it is the pinned version, or None; never one of our own links."""
    found = shutil.which(tool.name)
    if not found or not tool.asks or Path(found).parent.resolve() == paths.BINARIES.resolve():
        return None
    try:
        answer = subprocess.run(
            [found, *tool.asks],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return Path(found) if states_version(answer.stdout, tool.version) else None


def located(tool: Tool) -> Path | None:
    """The binary to use: from the cache, else from PATH, else None."""
    return tool.cached if tool.cached.exists() else on_path(tool)


def replace_link(link: Path, target: Path) -> None:
    """Point `link` to `target` in one step, so that nobody ever finds it missing."""
    if link.is_symlink() and link.readlink() == target:
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    temporary = link.with_name(f".{link.name}.{hashlib.sha256(str(target).encode()).hexdigest()[:8]}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)


def _source(module: Module) -> Path:
    """A module's source, by the link that `ci/tools` made, else fetched (RemoteError when that fails)."""
    link = paths.SOURCES / f"{module.directory}-{module.version}"
    if not link.exists():
        replace_link(link, golang.module_source(golang.find(), module.location, module.path))
    return link.resolve()


def kyverno_source() -> Path:
    """Kyverno's own source: its CRDs, its release manifest, and some hundreds of real policies."""
    return _source(KYVERNO)


def kwok_stages() -> str:
    """What kwok does to nodes and pods, as the YAML documents that its `--config` takes."""
    root = _source(KWOK) / "kustomize" / "stage"
    return "---\n".join((root / f"{name}.yaml").read_text() for name in _KWOK_STAGES)
