"""The pins, what is built from them, and which binaries may serve instead."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ci.testbed import builder, golang, paths, toolchain
from ci.testbed.toolchain import TOOLS, Module, Tool


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """A tool of a small module of its own, with a cache of its own."""
    monkeypatch.setattr(paths, "MODULES", tmp_path / "modules")
    monkeypatch.setattr(paths, "BINARIES", tmp_path / "bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    home = tmp_path / "modules" / "small"
    home.mkdir(parents=True)
    (home / "go.mod").write_text("module small\n\ngo 1.26.0\n\nrequire example.com/small v1.2.3\n")
    (home / "go.sum").write_text("")
    module = Module(directory="small", path="example.com/small")
    return Tool(name="small", module=module, package="small", stamps=["main.V={version}"], asks=["-v"], build_s=1)


def put_on_path(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    directory.mkdir()
    binary = directory / "small"
    binary.write_text(f"#!/bin/sh\n{script}\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory), prepend=":")
    return binary


def test_versions_are_those_of_the_pinned_modules() -> None:
    versions = {tool.name: tool.version for tool in TOOLS}
    assert versions["kubectl"] == versions["kube-apiserver"] == versions["kube-scheduler"]
    assert versions["kyverno"] == versions["kyverno-controller"]
    assert all(version[0].isdecimal() for version in versions.values())


def test_every_pinned_module_has_sums() -> None:
    for tool in TOOLS:
        sums = (tool.module.location / "go.sum").read_text()
        assert f"{tool.module.path} {tool.module.version} h1:" in sums


def test_linker_gets_the_version_in_the_form_that_each_program_wants() -> None:
    kubectl = next(tool for tool in TOOLS if tool.name == "kubectl")
    major, minor, _ = kubectl.version.split(".")
    flags = kubectl.linker_flags()
    assert f"-X k8s.io/client-go/pkg/version.gitVersion=v{kubectl.version}" in flags
    assert f"-X k8s.io/component-base/version.gitMinor={minor}" in flags
    assert f"-X k8s.io/component-base/version.gitMajor={major}" in flags


def test_key_changes_with_pins_source_and_flags_only(tool: Tool) -> None:
    key = tool.key()
    assert tool.key() == key
    assert dataclasses.replace(tool, build_s=99).key() == key
    assert dataclasses.replace(tool, stamps=["main.W={version}"]).key() != key
    (tool.module.location / "go.sum").write_text("example.com/small v1.2.3 h1:x=\n")
    with_sums = tool.key()
    assert with_sums != key
    (tool.module.location / "main.go").write_text("package main\n")
    assert tool.key() != with_sums


@pytest.mark.parametrize(
    ("output", "serves"),
    [
        ("Client Version: v1.36.3", True),
        ("etcd Version: 1.36.3\nGit SHA: abc", True),
        ("Client Version: v1.36.30", False),
        ("Client Version: v11.36.3", False),
        ("Client Version: v1.36.3-rc.0", False),
        ("Client Version: v1.36.3+k3s1", False),
        ("Client Version: v1.32.4", False),
        ("", False),
    ],
)
def test_only_the_very_version_serves(output: str, serves: bool) -> None:
    assert toolchain.states_version(output, "1.36.3") is serves


@pytest.mark.parametrize(
    ("script", "serves"),
    [
        ("echo small v1.2.3", True),
        ("echo small v1.2.4", False),
        ("echo small v1.2.3 >&2; exit 1", False),
        ("printf '\\377'", False),
    ],
)
def test_binary_on_path_is_asked(
    tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, serves: bool
) -> None:
    binary = put_on_path(tmp_path / "elsewhere", monkeypatch, script)
    assert toolchain.located(tool) == (binary if serves else None)


def test_own_links_on_path_do_not_count(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_path(paths.BINARIES, monkeypatch, "echo small v1.2.3")
    assert toolchain.located(tool) is None


def test_cached_binary_goes_before_path(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_path(tmp_path / "elsewhere", monkeypatch, "echo small v1.2.3")
    tool.cached.parent.mkdir(parents=True)
    tool.cached.touch()
    assert toolchain.located(tool) == tool.cached


def test_link_is_replaced_and_made_once(tmp_path: Path) -> None:
    link = tmp_path / "bin" / "small"
    toolchain.replace_link(link, tmp_path / "one")
    made = link.lstat().st_ino
    toolchain.replace_link(link, tmp_path / "one")
    assert (link.readlink(), link.lstat().st_ino) == (tmp_path / "one", made)
    toolchain.replace_link(link, tmp_path / "two")
    assert link.readlink() == tmp_path / "two"
    assert [entry.name for entry in link.parent.iterdir()] == ["small"]


@pytest.mark.parametrize(
    ("output", "code", "hint"),
    [
        ("write /x: no space left on device", 1, "disk is full"),
        ("dial tcp: lookup proxy.example: no such host", 1, "check the network"),
        ("", -9, "memory"),
        ("main.go:1:1: expected package", 1, "the log says more"),
    ],
)
def test_failed_build_says_what_to_do(tool: Tool, output: str, code: int, hint: str) -> None:
    failure = builder.failed(tool, output, Path("/x/build.log"), code)
    assert hint in failure.hint
    assert any("/x/build.log" in line for line in failure.details)


def test_go_is_never_allowed_to_fetch_another_toolchain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOTOOLCHAIN", "auto")
    monkeypatch.setenv("CGO_ENABLED", "1")
    variables = golang.Go(command="go", version="go1.26.6").variables()
    assert (variables["GOTOOLCHAIN"], variables["CGO_ENABLED"]) == ("local", "0")
