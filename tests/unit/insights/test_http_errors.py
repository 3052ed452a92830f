"""Each exception of the HTTP libraries has a meaning of ours, and none of their text comes through."""

from __future__ import annotations

import inspect
import socket
import ssl

import pytest
import urllib3.exceptions as pool_errors
from requests import exceptions as request_errors

from renderer.errors import ConfigurationError, RemoteError
from renderer.http import PassingError
from renderer.insights.http_errors import LIBRARY_ERRORS, MEANINGS, failure_of


def library_exceptions() -> list[type[Exception]]:
    """List every exception class that the two libraries define, but for warnings."""
    found = {
        member
        for module in (request_errors, pool_errors)
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Exception)
        and not issubclass(member, Warning)
        and member.__module__.split(".")[0] in {"requests", "urllib3"}
    }
    return sorted(found, key=lambda member: f"{member.__module__}.{member.__name__}")


def bare(error: type[Exception]) -> Exception:
    """Make an instance without knowing what its constructor wants."""
    made = error.__new__(error)
    made.args = ("s3cr3t",)
    return made


def test_there_are_exceptions_to_look_at() -> None:
    assert len(library_exceptions()) > 50


@pytest.mark.parametrize("error", library_exceptions(), ids=lambda error: f"{error.__module__}.{error.__name__}")
class TestEachException:
    def test_has_a_meaning_of_its_own(self, error: type[Exception]) -> None:
        assert error in MEANINGS, "new in the library: say in http_errors.py what it means"

    def test_is_caught(self, error: type[Exception]) -> None:
        assert issubclass(error, LIBRARY_ERRORS)

    def test_becomes_one_of_our_errors_without_its_text(self, error: type[Exception]) -> None:
        failure = failure_of(bare(error), failed="Could not fetch", ca_variable="")
        assert isinstance(failure, RemoteError | ConfigurationError)
        assert str(failure).startswith("Could not fetch: ")
        assert "s3cr3t" not in str(failure)


def test_nothing_is_listed_that_no_library_raises() -> None:
    assert set(MEANINGS) - set(library_exceptions()) == {OSError, TimeoutError}


def test_a_subclass_means_what_its_parent_means() -> None:
    class Newer(request_errors.ReadTimeout):
        pass

    failure = failure_of(Newer(), failed="Could not fetch", ca_variable="")
    assert isinstance(failure, PassingError)
    assert "did not answer in time" in str(failure)


def unresolved(number: int) -> Exception:
    error = request_errors.ConnectionError()
    error.__cause__ = socket.gaierror(number, "system's words")
    return error


def test_an_unknown_host_is_final_and_a_resolver_in_trouble_is_not() -> None:
    unknown = failure_of(unresolved(socket.EAI_NONAME), failed="x", ca_variable="")
    assert str(unknown) == "x: no such host (system's words).\nCheck FAIRWINDS_INSIGHTS_HOST (--host)."
    assert not isinstance(unknown, PassingError)
    assert isinstance(failure_of(unresolved(socket.EAI_AGAIN), failed="x", ca_variable=""), PassingError)


def test_a_connection_cut_within_tls_says_nothing_about_certificates() -> None:
    cut = request_errors.SSLError(ssl.SSLEOFError(8, "EOF"))
    failure = failure_of(cut, failed="x", ca_variable="")
    assert isinstance(failure, PassingError)
    assert "SSL_CERT_FILE" not in str(failure)


def test_causes_in_a_circle_do_no_harm() -> None:
    first, second = OSError("a"), OSError("b")
    first.__cause__, second.__cause__ = second, first
    assert isinstance(failure_of(first, failed="x", ca_variable=""), PassingError)
