"""What the API server's answers are told as."""

from __future__ import annotations

import json

import pytest
from kubernetes import client

from applier.cluster import connection
from renderer.http import PassingError
from tests.unit.insights.rawserver import saying


@pytest.mark.parametrize(
    ("webhook", "reason", "told"),
    [
        ("validate-policy.kyverno.svc", "context deadline exceeded", "did not answer in time"),
        ("validate-policy.kyverno.svc", "connect: connection refused", "does not answer. Start it"),
        ("validate.gatekeeper.sh", "context deadline exceeded", "webhook of another program"),
    ],
)
def test_a_webhook_that_fails_is_told_as_what_it_is(webhook: str, reason: str, told: str) -> None:
    message = f'failed calling webhook "{webhook}": failed to call webhook: Post "https://a?timeout=10s": {reason}'
    body = json.dumps({"kind": "Status", "reason": "InternalError", "message": message}).encode()
    found = connection._refusal("https://cluster.example", "POST", "/apis", 500, {}, body)
    assert isinstance(found, PassingError)
    assert told in found.hint
    assert ("delete what it left" in found.hint) == ("refused" in reason)


def test_a_server_that_asks_to_wait_for_longer_than_a_call_may_take_is_not_waited_for() -> None:
    with saying(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 86400\r\nContent-Length: 0\r\n\r\n") as server:
        found = connection.Connection(client.Configuration(host=server.url))
        with pytest.raises(PassingError):
            found.get("/version", seconds=1)
        assert len(server.heads) == 1
