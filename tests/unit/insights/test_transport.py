"""The transport against real servers: the token, every fault, retries, limits, proxies and certificates."""

from __future__ import annotations

import re
import socket
import ssl
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tenacity.nap
import trustme

from renderer.errors import ConfigurationError, ExitCode, Failure, NotPermitted, RemoteError
from renderer.http import retry_after_seconds, user_agent
from renderer.insights.jobs import claim_jobs, report_job
from renderer.insights.policies import fetch_policies
from renderer.insights.status import PolicyStatus, report_status
from renderer.insights.transport import Answer, Call, Limits, Transport
from tests.support.insights import CallName, Fault, InsightsStandIn
from tests.support.workflow import until
from tests.unit.insights.conftest import BRIEF, POLICIES, TOKEN, config_for
from tests.unit.insights.rawserver import dripping, saying

if TYPE_CHECKING:
    from renderer.insights.config import InsightsConfig

PASSING = [
    Fault.TOO_MANY_REQUESTS,
    Fault.SERVER_ERROR,
    Fault.UNAVAILABLE,
    Fault.RESET,
    Fault.LOST_ANSWER,
    Fault.STALL,
    Fault.STALL_IN_BODY,
    Fault.TRUNCATED,
    Fault.BROKEN_CHUNK,
    Fault.NO_LAST_CHUNK,
]
FINAL = {
    Fault.UNAUTHORIZED: (NotPermitted, "answered 401, so it does not accept the token"),
    Fault.FORBIDDEN: (NotPermitted, "answered 403, so it does not accept the token"),
    Fault.NOT_FOUND: (ConfigurationError, "answered 404: it knows no cluster 'prod' of organization 'acme'"),
    Fault.CONFLICT: (RemoteError, "answered 409"),
    Fault.UNDECLARED_LENGTH: (RemoteError, "did not say how long its answer is"),
    Fault.HTML_PAGE: (RemoteError, "answered with an HTML page"),
    Fault.REDIRECT: (RemoteError, "answered 302, a redirect to https://elsewhere.example/login"),
}


STATUS = PolicyStatus(
    policy_name="one",
    action="apply",
    status="success",
    last_applied_at=datetime(2026, 8, 1, tzinfo=UTC),
    policy_body="",
)
CALLS: Mapping[str, Callable[[Transport, InsightsConfig], object]] = {
    "claim": lambda transport, config: claim_jobs(transport, config, 1),
    "apply-status": lambda transport, config: report_status(transport, config, STATUS),
    "job-status": lambda transport, config: report_job(transport, config, 1, "running"),
}


def get(config: InsightsConfig) -> Call:
    return Call(
        method="GET",
        url=config.url("kyverno-policies/with-app-groups-applied/yaml"),
        purpose="fetch the policies",
        missing=config.subject,
        repeatable=True,
    )


def failure(transport: Transport, call: Call) -> Failure:
    with pytest.raises(Failure) as raised:
        transport.send(call)
    return raised.value


def everything_said(error: BaseException) -> str:
    """Give all that any log could show of an error: its text, its causes, its traceback."""
    return "\n".join([str(error), repr(error), *traceback.format_exception(error)])


class TestWhatIsSent:
    def test_the_token_and_who_asks(
        self, insights: InsightsStandIn, transport: Transport, config: InsightsConfig
    ) -> None:
        assert transport.send(get(config)) == Answer(status=200, body=POLICIES.encode())
        headers = insights.requests[0].headers
        assert headers["Authorization"] == f"Bearer {TOKEN}"
        assert headers["User-Agent"] == user_agent()
        assert user_agent().startswith("on-demand-job-runner")
        assert headers["Accept-Encoding"] == "identity"

    @pytest.mark.parametrize("name", ["../x", "a/b", "%2e%2e", "a?b", "x;y", "..;/z"])
    def test_no_name_changes_the_path(self, insights: InsightsStandIn, transport: Transport, name: str) -> None:
        failure(transport, get(config_for(insights.url, cluster=name)))
        (request,) = insights.requests
        assert request.cluster == name
        assert request.call == "policies"

    def test_many_threads_share_it(
        self, insights: InsightsStandIn, transport: Transport, config: InsightsConfig
    ) -> None:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: transport.send(get(config)).body, range(40)))
        assert answers == [POLICIES.encode()] * 40
        assert len(insights.requests) == 40


def limits_for(fault: Fault) -> Limits:
    """Give limits that end a stall soon, and leave every other answer all the time it needs."""
    return BRIEF if fault in {Fault.STALL, Fault.STALL_IN_BODY} else Limits()


@pytest.mark.usefixtures("no_waiting")
class TestFaultsThatPass:
    @pytest.mark.parametrize("fault", PASSING)
    def test_are_tried_again(self, insights: InsightsStandIn, config: InsightsConfig, fault: Fault) -> None:
        insights.fail(fault)
        # A good answer may miss a brief limit on a busy machine, and is asked for again.
        with Transport(config, limits=replace(limits_for(fault), attempts=50), environ={}) as transport:
            assert transport.send(get(config)).body == POLICIES.encode()
        assert [request.fault for request in insights.requests[:2]] == [fault, None]

    @pytest.mark.parametrize("fault", PASSING)
    def test_end_after_four_attempts(self, insights: InsightsStandIn, config: InsightsConfig, fault: Fault) -> None:
        insights.fail(fault, times=9)
        with Transport(config, limits=limits_for(fault), environ={}) as transport:
            error = failure(transport, get(config))
        assert isinstance(error, RemoteError)
        assert error.code is ExitCode.UNAVAILABLE
        assert str(error).startswith("Could not fetch the policies")
        assert "Tried 4 times." in str(error)
        assert insights.url.removeprefix("http://") in str(error)
        # A busy server may take note of a request after its client has left.
        until(lambda: len(insights.requests) >= 4)
        assert len(insights.requests) == 4

    @pytest.mark.parametrize("fault", PASSING)
    def test_end_at_once_where_repeating_would_do_harm(
        self, insights: InsightsStandIn, config: InsightsConfig, fault: Fault
    ) -> None:
        insights.fail(fault, times=9)
        with (
            Transport(config, limits=limits_for(fault), environ={}) as transport,
            pytest.raises(RemoteError),
        ):
            claim_jobs(transport, config, 1)
        until(lambda: bool(insights.requests))
        assert [request.call for request in insights.requests] == ["claim"]

    def test_nobody_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as held:
            held.shutdown(socket.SHUT_RDWR)  # the port stays ours, and refuses
            config = config_for(f"http://127.0.0.1:{held.getsockname()[1]}")
            with Transport(config, environ={}) as transport:
                error = failure(transport, get(config))
        assert "the connection failed (Connection refused)" in str(error)
        assert "Tried 4 times." in str(error)


class TestFaultsThatDoNotPass:
    @pytest.mark.parametrize("fault", FINAL)
    def test_end_at_once(
        self, insights: InsightsStandIn, transport: Transport, config: InsightsConfig, fault: Fault
    ) -> None:
        insights.fail(fault, times=9)
        expected, text = FINAL[fault]
        error = failure(transport, get(config))
        assert type(error) is expected
        assert text in str(error)
        assert error.hint
        assert len(insights.requests) == 1

    def test_every_fault_passes_or_does_not(self) -> None:
        assert {*PASSING, *FINAL} == set(Fault)

    @pytest.mark.parametrize("call", ["claim", "apply-status", "job-status"])
    def test_a_page_is_no_answer_to_any_call(
        self, insights: InsightsStandIn, transport: Transport, config: InsightsConfig, call: CallName
    ) -> None:
        insights.fail(Fault.HTML_PAGE, call=call)
        with pytest.raises(RemoteError, match="answered with an HTML page"):
            CALLS[call](transport, config)
        assert [request.call for request in insights.requests] == [call]

    def test_a_redirect_does_not_take_the_token_along(
        self, insights: InsightsStandIn, transport: Transport, config: InsightsConfig
    ) -> None:
        with saying(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as elsewhere:
            insights.fail(Fault.REDIRECT, location=f"http://user:pa55@127.0.0.1:{elsewhere.port}/login?key=pa55")
            error = failure(transport, get(config))
            assert elsewhere.heads == []
        assert f"a redirect to http://127.0.0.1:{elsewhere.port}/login," in str(error)
        assert "pa55" not in str(error)

    @pytest.mark.parametrize(
        ("location", "shown"),
        [("", "nowhere"), ("/login", "/login"), ("http://[", "an address that is no URL")],
    )
    def test_a_redirect_to_anywhere(
        self,
        insights: InsightsStandIn,
        transport: Transport,
        config: InsightsConfig,
        location: str,
        shown: str,
    ) -> None:
        insights.fail(Fault.REDIRECT, location=location)
        assert f"a redirect to {shown}," in str(failure(transport, get(config)))


class TestWhatErrorsShow:
    @pytest.mark.parametrize("fault", Fault)
    @pytest.mark.usefixtures("no_waiting")
    def test_is_never_the_token(self, insights: InsightsStandIn, config: InsightsConfig, fault: Fault) -> None:
        location = f"https://{TOKEN}@x.example/{TOKEN}?{TOKEN}"
        insights.fail(fault, times=9, body=f"Bearer {TOKEN} is wrong\nbody", location=location)
        with (
            Transport(config, limits=limits_for(fault), environ={}) as transport,
            pytest.raises(Failure) as raised,
        ):
            fetch_policies(transport, config)
        assert TOKEN not in everything_said(raised.value)

    def test_is_a_short_clean_line_of_the_answer(
        self, insights: InsightsStandIn, transport: Transport, config: InsightsConfig
    ) -> None:
        insights.fail(Fault.FORBIDDEN, body="\n no\x1b[31m way\x00 \nsecond line")
        assert '("no [31m way")' in str(failure(transport, get(config)))
        insights.fail(Fault.FORBIDDEN, body="x" * 100_000)
        assert f'("{"x" * 160}…")' in str(failure(transport, get(config)))

    @pytest.mark.parametrize("body", ["<html><body>Blocked", "<!DOCTYPE html>\n<title>Blocked"])
    def test_is_nothing_of_a_page(
        self, insights: InsightsStandIn, transport: Transport, config: InsightsConfig, body: str
    ) -> None:
        insights.fail(Fault.FORBIDDEN, body=body)
        assert "does not accept the token." in str(failure(transport, get(config)))

    @pytest.mark.usefixtures("no_waiting")
    def test_keeps_the_status_when_its_text_never_comes(self) -> None:
        with dripping(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 9999\r\n\r\n", b"x") as server:
            config = config_for(server.url)
            with Transport(config, limits=BRIEF, environ={}) as transport:
                assert "answered 403" in str(failure(transport, get(config)))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Take the place of the clock's sleep, and keep how long it was asked to last."""
    asked: list[float] = []

    class Clock:
        sleep = staticmethod(asked.append)

    monkeypatch.setattr(tenacity.nap, "time", Clock)
    return asked


class TestWaiting:
    def test_grows_and_is_jittered(self, insights: InsightsStandIn, config: InsightsConfig, waits: list[float]) -> None:
        insights.fail(Fault.SERVER_ERROR, times=3)
        with Transport(config, limits=Limits(jitter_seconds=0.25), environ={}) as transport:
            transport.send(get(config))
        for wait, least in zip(waits, [0.5, 1, 2], strict=True):
            assert least <= wait <= least + 0.25

    @pytest.mark.parametrize("fault", [Fault.TOO_MANY_REQUESTS, Fault.SERVER_ERROR])
    def test_is_at_least_what_retry_after_asks(
        self, insights: InsightsStandIn, config: InsightsConfig, waits: list[float], fault: Fault
    ) -> None:
        insights.fail(fault, retry_after="7")
        insights.fail(fault, retry_after="0")
        with Transport(config, limits=Limits(jitter_seconds=2), environ={}, jitter=lambda: 0.25) as transport:
            transport.send(get(config))
        assert waits == [7.5, 0.5]

    def test_is_not_done_beyond_the_calls_time(
        self, insights: InsightsStandIn, config: InsightsConfig, waits: list[float]
    ) -> None:
        insights.fail(Fault.TOO_MANY_REQUESTS, times=9, retry_after="3600")
        with Transport(config, environ={}) as transport:
            error = failure(transport, get(config))
        assert "and asks to wait 3600 s" in str(error)
        assert "Tried 1 time." in str(error)
        assert waits == []
        assert len(insights.requests) == 1

    def test_ends_when_the_calls_time_is_over(
        self, insights: InsightsStandIn, config: InsightsConfig, waits: list[float]
    ) -> None:
        insights.fail(Fault.SERVER_ERROR, times=9)
        # Each look at the clock finds it 40 s later: at the start, at an attempt, in it, and after it.
        seconds = count(0, 40)
        with Transport(config, limits=Limits(attempts=9), environ={}, clock=lambda: float(next(seconds))) as transport:
            error = failure(transport, get(config))
        assert "Tried 2 times." in str(error)
        assert len(waits) == 1

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("0", 0),
            ("120", 120),
            (" 5 ", 5),
            ("Sat, 01 Aug 2026 12:00:30 GMT", 30),
            ("Sat, 01 Aug 2026 14:00:30 +0200", 30),
            ("Sat, 01 Aug 2026 12:00:30 -0000", 30),
            ("Saturday, 01-Aug-26 12:00:30 GMT", 30),
            ("Sat, 01 Aug 2026 11:00:00 GMT", 0),
            ("", None),
            ("-5", None),
            ("1.5", None),
            ("٣", None),
            ("soon", None),
            ("Sat, 01 Aug 2026 12:00:30 +99999999999999999", None),
            ("Sat, 99 Aug 2026 12:00:30 GMT", None),
        ],
    )
    def test_reads_retry_after(self, value: str, seconds: float | None) -> None:
        assert retry_after_seconds(value, now=datetime(2026, 8, 1, 12, tzinfo=UTC)) == seconds


class TestLimits:
    @pytest.mark.timeout(30)
    @pytest.mark.parametrize(
        ("start", "drop"),
        [
            pytest.param(b"HTTP/1.1 200 OK\r\nX: ", b"x", id="head"),
            pytest.param(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", id="headers"),
            pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", id="continue"),
            pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n", b"x", id="body"),
            pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", id="chunks"),
            pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1", b";x", id="chunk-size"),
        ],
    )
    @pytest.mark.usefixtures("no_waiting")
    def test_end_a_server_that_drips(self, start: bytes, drop: bytes) -> None:
        with dripping(start, drop) as server:
            config = config_for(server.url)
            with Transport(config, limits=replace(BRIEF, attempts=2), environ={}) as transport:
                error = failure(transport, get(config))
        # A hundred headers are an error for http.client before the time is up.
        assert re.search("it did not answer in time|broke off", str(error))
        assert isinstance(error, RemoteError)

    @pytest.mark.parametrize(
        "head", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"], ids=["length", "chunked"]
    )
    def test_cap_the_answers_bytes(self, head: bytes) -> None:
        body = b"x" * 1000
        if b"chunked" in head:
            body = b"3e8\r\n" + body + b"\r\n0\r\n\r\n"
        with saying(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body) as server:
            config = config_for(server.url)
            with Transport(config, limits=Limits(answer_bytes=1000), environ={}) as transport:
                assert transport.send(get(config)).body == b"x" * 1000
            with Transport(config, limits=Limits(answer_bytes=999), environ={}) as transport:
                assert "answered with more than 999 bytes" in str(failure(transport, get(config)))
            assert len(server.heads) == 2

    @pytest.mark.parametrize(
        ("answer", "text"),
        [
            (
                b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
                "compressed its answer",
            ),
            (b"HTTP/1.1 200 OK\r\n\r\nkind: x", "did not say how long"),
            (b"HTTP/1.0 200 OK\r\n\r\nkind: x", "did not say how long"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nkind: x", "did not say how long"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxy", "is not proper HTTP"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "broke off before its end"),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n-1\r\n",
                "broke off before its end",
            ),
            (b"SSH-2.0-OpenSSH_9.9\r\n", "the connection failed"),
            (b"", "the connection failed"),
            (b"HTTP/1.1 418 Teapot\r\nContent-Length: 5\r\n\r\nshort", 'answered 418 ("short")'),
            (b"HTTP/1.1 304 Not Modified\r\n\r\n", "a redirect to nowhere"),
        ],
    )
    @pytest.mark.usefixtures("no_waiting")
    def test_take_nothing_that_may_be_a_part(self, answer: bytes, text: str) -> None:
        with saying(answer) as server:
            config = config_for(server.url)
            with Transport(config, environ={}) as transport:
                assert text in str(failure(transport, get(config)))


class TestProxies:
    @pytest.fixture(autouse=True)
    def clean_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.lower(), raising=False)

    @pytest.mark.usefixtures("no_waiting")
    def test_are_taken_from_the_environment(self, insights: InsightsStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
        config = config_for("http://insights.invalid")
        monkeypatch.setenv("http_proxy", insights.url)
        with Transport(config) as transport:
            assert transport.send(get(config)).body == POLICIES.encode()
            assert insights.requests[0].headers["Host"] == "insights.invalid"
            monkeypatch.setenv("no_proxy", ".invalid")
            assert "insights.invalid" in str(failure(transport, get(config)))
        assert len(insights.requests) == 1

    @pytest.mark.usefixtures("no_waiting")
    def test_see_neither_token_nor_path_of_https(self, monkeypatch: pytest.MonkeyPatch) -> None:
        config = config_for("https://insights.invalid")
        with saying(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n") as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://user:pa55@127.0.0.1:{proxy.port}")
            with Transport(config) as transport:
                error = failure(transport, get(config))
        assert {tuple(head.split()[:2]) for head in proxy.heads} == {(b"CONNECT", b"insights.invalid:443")}
        assert not [head for head in proxy.heads if TOKEN.encode() in head]
        assert "the proxy does not let it through" in str(error)
        assert "HTTPS_PROXY" in str(error)
        assert "pa55" not in str(error)

    def test_are_not_asked_for_this_machine(
        self, insights: InsightsStandIn, config: InsightsConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with saying(b"") as proxy:
            for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.url)
            with Transport(config) as transport:
                transport.send(get(config))
            assert proxy.heads == []
        assert len(insights.requests) == 1

    @pytest.mark.parametrize("proxy", ["foo://proxy.example:1", "http://[", "socks5://127.0.0.1:1", "http://:0"])
    @pytest.mark.usefixtures("no_waiting")
    def test_that_can_not_be_used_are_a_wrong_setting(self, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
        config = config_for("https://insights.invalid")
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        with Transport(config) as transport:
            error = failure(transport, get(config))
        assert isinstance(error, ConfigurationError)
        assert "HTTPS_PROXY" in str(error)

    def test_netrc_does_not_replace_the_token(
        self, insights: InsightsStandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("default login other password other\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.setenv("http_proxy", insights.url)
        config = config_for("http://insights.invalid")
        with Transport(config) as transport:
            transport.send(get(config))
        assert insights.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


class TestTls:
    @pytest.fixture
    def insights(self, authority: trustme.CA) -> Iterator[InsightsStandIn]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        with InsightsStandIn(token=TOKEN, tls=context) as stand_in:
            stand_in.publish("prod", POLICIES)
            yield stand_in

    @pytest.fixture
    def bundles(self, authority: trustme.CA, tmp_path: Path) -> dict[str, str]:
        names = {name: str(tmp_path / name) for name in ("right", "wrong", "broken", "missing")}
        authority.cert_pem.write_to_path(names["right"])
        trustme.CA().cert_pem.write_to_path(names["wrong"])
        Path(names["broken"]).write_text("no certificate\n")
        return names

    @pytest.mark.parametrize(
        "files",
        [
            {"SSL_CERT_FILE": "right"},
            {"REQUESTS_CA_BUNDLE": "right"},
            {"CURL_CA_BUNDLE": "right"},
            {"REQUESTS_CA_BUNDLE": "right", "SSL_CERT_FILE": "wrong"},
            {"CURL_CA_BUNDLE": "right", "SSL_CERT_FILE": "missing"},
            {"REQUESTS_CA_BUNDLE": "", "SSL_CERT_FILE": "right"},
        ],
    )
    def test_trusts_what_the_strongest_variable_names(
        self,
        insights: InsightsStandIn,
        config: InsightsConfig,
        bundles: dict[str, str],
        files: dict[str, str],
    ) -> None:
        environ = {variable: bundles.get(name, "") for variable, name in files.items()}
        with Transport(config, environ=environ) as transport:
            assert transport.send(get(config)).body == POLICIES.encode()
        assert insights.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"

    @pytest.mark.parametrize("file", ["wrong", "broken"])
    def test_fails_at_once_for_an_unknown_authority(
        self, insights: InsightsStandIn, config: InsightsConfig, bundles: dict[str, str], file: str
    ) -> None:
        with Transport(config, environ={"SSL_CERT_FILE": bundles[file]}) as transport:
            error = failure(transport, get(config))
        assert type(error) is RemoteError
        assert re.search(r"TLS failed \(.*certificate.*\)\.\n", str(error))
        assert error.hint == "Only the certificates that SSL_CERT_FILE names are trusted; check that file."
        assert insights.requests == []

    def test_points_to_ssl_cert_file_where_nothing_was_named(
        self, insights: InsightsStandIn, transport: Transport, config: InsightsConfig
    ) -> None:
        assert "name its certificate in SSL_CERT_FILE" in str(failure(transport, get(config)))
        assert insights.requests == []

    def test_says_which_variable_names_nothing(self, config: InsightsConfig, bundles: dict[str, str]) -> None:
        for missing in (bundles["missing"], "a\x00b"):
            with pytest.raises(ConfigurationError, match=r"^SSL_CERT_FILE: .* does not exist"):
                Transport(config, environ={"SSL_CERT_FILE": missing})

    def test_refuses_a_server_that_speaks_plain_http(self) -> None:
        with saying(b"HTTP/1.1 400 Bad Request\r\n\r\n", speaks_first=True) as server:
            config = config_for(server.url.replace("http:", "https:"))
            with Transport(config, environ={}) as transport:
                assert "TLS failed (wrong version number)" in str(failure(transport, get(config)))
