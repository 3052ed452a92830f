"""Settings for Insights: what is accepted, what is refused, and that no text ever shows the token."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from renderer.errors import ConfigurationError, ExitCode
from renderer.insights.config import DEFAULT_HOST, InsightsConfig, Token, read_token

SECRET = "s3cr3t-t0k3n"


def config(**changes: Any) -> InsightsConfig:
    return InsightsConfig.of(**{"host": None, "organization": "acme", "cluster": "prod", "token": SECRET, **changes})


def refused(**changes: Any) -> str:
    with pytest.raises(ConfigurationError) as raised:
        config(**changes)
    assert raised.value.code is ExitCode.CONFIGURATION
    return str(raised.value)


class TestHost:
    @pytest.mark.parametrize("unset", [None, ""])
    def test_is_insights_own_by_default(self, unset: str | None) -> None:
        assert config(host=unset).host == DEFAULT_HOST == "https://insights.fairwinds.com"

    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            ("https://insights.example.com", "https://insights.example.com"),
            ("https://insights.example.com/", "https://insights.example.com"),
            ("https://insights.example.com:8443/prefix/", "https://insights.example.com:8443/prefix"),
            ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
            ("HTTPS://insights.example.com", "HTTPS://insights.example.com"),
        ],
    )
    def test_accepts_a_base_url(self, given: str, kept: str) -> None:
        assert config(host=given).host == kept

    @pytest.mark.parametrize(
        "host",
        [
            "insights.example.com",
            "//insights.example.com",
            "https:insights.example.com",
            "ftp://insights.example.com",
            "https://",
            "https://:443",
            "https://insights.example.com:port",
            "https://insights.example.com:99999",
            "https://insights.example.com:0",
            "https://[::1",
            "https://insights.example.com/a/../b",
            "https://insights.example.com/ b",
            "https://insights.example.com\n",
            "https://insights.example.com\x00",
            "https://insights.example.com\\evil.example",
        ],
    )
    def test_refuses_what_is_no_base_url(self, host: str) -> None:
        message = refused(host=host)
        assert message.startswith("FAIRWINDS_INSIGHTS_HOST (--host): ")
        assert repr(host) in message
        assert "it takes a URL such as https://insights.fairwinds.com" in message

    @pytest.mark.parametrize(
        "host",
        [
            "https://user:pa55@insights.example.com",
            "https://pa55@insights.example.com",
            "user:pa55@insights.example.com",
            "https://user:pa55://x@insights.example.com",
            "https://insights.example.com?key=pa55",
            "https://insights.example.com#pa55",
            "https://insights.example.com?key=pa55@x",
            "https://trusted.example\\@evil.example/pa55",
        ],
    )
    def test_refuses_what_may_hold_a_secret_without_showing_it(self, host: str) -> None:
        message = refused(host=host)
        assert "FAIRWINDS_INSIGHTS_HOST (--host)" in message
        assert "pa55" not in message

    @pytest.mark.parametrize("place", ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.10", "[::1]"])
    def test_allows_plain_http_on_this_machine(self, place: str) -> None:
        assert config(host=f"http://{place}:8080").is_loopback

    @pytest.mark.parametrize(
        "place",
        [
            "insights.example.com",
            "10.0.0.1",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "0.0.0.0",
            "[::2]",
        ],
    )
    def test_refuses_plain_http_elsewhere_unless_told(self, place: str) -> None:
        message = refused(host=f"http://{place}")
        assert "unencrypted" in message
        assert "--insecure-http" in message
        allowed = config(host=f"http://{place}", insecure_http=True)
        assert allowed.host == f"http://{place}"
        assert not allowed.is_loopback


class TestNames:
    @pytest.mark.parametrize(
        ("field", "setting"),
        [("organization", "FAIRWINDS_ORG (--organization)"), ("cluster", "FAIRWINDS_CLUSTER (--cluster)")],
    )
    @pytest.mark.parametrize("value", [None, "", ".", "..", " prod", "prod\n", "pr\x00od", "pr\udc80od", "pr\u2028od"])
    def test_are_refused_with_their_setting(self, field: str, setting: str, value: str | None) -> None:
        message = refused(**{field: value})
        assert message.startswith(setting)
        assert "as Insights shows it" in message
        if value:
            assert repr(value) in message

    @pytest.mark.parametrize(
        ("name", "quoted"),
        [
            ("prod", "prod"),
            ("my cluster", "my%20cluster"),
            ("../x", "..%2Fx"),
            ("a/b", "a%2Fb"),
            ("a?b#c", "a%3Fb%23c"),
            ("50%2F", "50%252F"),
            ("münchen", "m%C3%BCnchen"),
        ],
    )
    def test_stay_one_segment_of_the_path(self, name: str, quoted: str) -> None:
        assert config(organization=name).url("x") == f"{DEFAULT_HOST}/v0/organizations/{quoted}/clusters/prod/x"
        assert config(cluster=name).url("x") == f"{DEFAULT_HOST}/v0/organizations/acme/clusters/{quoted}/x"

    def test_name_the_cluster_in_messages(self) -> None:
        assert config().subject == "cluster 'prod' of organization 'acme'"


class TestToken:
    @pytest.mark.parametrize("text", [SECRET, f"{SECRET}\n", f"{SECRET}\r\n"])
    def test_loses_one_newline_at_its_end(self, text: str) -> None:
        assert config(token=text).token.reveal() == SECRET

    @pytest.mark.parametrize(
        "text", ["", "\n", f"{SECRET}\n\n", f" {SECRET}", f"{SECRET} x", f"{SECRET}\r\nX: y", "s3cré"]
    )
    def test_is_refused_where_it_would_break_the_header(self, text: str) -> None:
        message = refused(token=text)
        assert message.startswith("FAIRWINDS_TOKEN (--token-file)")
        assert "printable ASCII" in message
        assert "s3cr" not in message

    def test_is_refused_when_it_is_missing(self) -> None:
        message = refused(token=None)
        assert message.startswith("FAIRWINDS_TOKEN (--token-file) is not set")

    def test_shows_in_no_text(self) -> None:
        held = config()
        texts = [repr(held), str(held), f"{held.token}", f"{held.token!r}", repr(dataclasses.asdict(held))]
        texts += [repr([held.token]), f"{held.token} {held.token!r}", repr(copy.deepcopy(held))]
        assert not [text for text in texts if SECRET in text]

    def test_is_a_value(self) -> None:
        assert Token.of("a") == Token.of("a\n")
        assert Token.of("a") != Token.of("b")
        assert len({Token.of("a"), Token.of("a"), Token.of("b")}) == 2


class TestTokenFile:
    @pytest.mark.parametrize("content", [SECRET, f"{SECRET}\n", f"{SECRET}\r\n"])
    def test_gives_its_token(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "token"
        path.write_bytes(content.encode())
        assert read_token(path).reveal() == SECRET

    def test_accepts_the_longest_token_but_no_longer(self, tmp_path: Path) -> None:
        path = tmp_path / "token"
        path.write_bytes(b"x" * 16 * 1024 + b"\r\n")
        assert len(read_token(path).reveal()) == 16 * 1024
        path.write_bytes(b"x" * (16 * 1024 + 1))
        assert "longer than" in self.refused(path)

    @pytest.mark.parametrize(
        "content", [b"", b"\n", b"s3cr3t\xff", b"s3\x00cr3t", "s3cré".encode(), b"s3cr3t\nsecond line\n"]
    )
    def test_is_refused_where_it_holds_no_token(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "token"
        path.write_bytes(content)
        message = self.refused(path)
        assert "s3cr" not in message

    def test_is_refused_where_it_can_not_be_read(self, tmp_path: Path) -> None:
        assert "No such file" in self.refused(tmp_path / "missing")
        assert "Is a directory" in self.refused(tmp_path)
        assert "Not a directory" in self.refused(Path(__file__) / "x")
        assert "null" in self.refused(tmp_path / "a\x00b")

    def test_is_read_as_data_without_end(self) -> None:
        assert "no token has" in self.refused(Path("/dev/zero"))

    def refused(self, path: Path) -> str:
        with pytest.raises(ConfigurationError) as raised:
            read_token(path)
        message = str(raised.value)
        assert repr(str(path)) in message
        assert "--token-file" in message
        return message


def test_everything_but_the_transport_imports_without_requests() -> None:
    modules = ", ".join(f"renderer.insights.{name}" for name in ("config", "policies", "status", "jobs"))
    code = f"import sys, {modules}; sys.exit(bool({{'requests', 'urllib3', 'stamina'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
