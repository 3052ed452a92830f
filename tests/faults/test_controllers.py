"""Somebody on the cluster does not have a policy: a controller that puts it back, an admission that refuses it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Literal, TypeAlias

import pytest

from applier import diff
from applier.transaction.writes import OnFailure
from renderer.errors import ExitCode
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.kinds import ADMISSION
from renderer.manifest.normalize import content
from tests.faults.bed import Bed
from tests.faults.faults import End, Expected, expected
from tests.faults.matrix import Tally, judge, order
from tests.faults.requests import Point
from tests.support.policies import admission_binding, admission_policy, cluster_policy, identity_of
from tests.support.proxy import Exchange

pytestmark = pytest.mark.timeout(7200)

#: Before the run hears that its write was made, or just before it reads all of them back.
Moment: TypeAlias = Literal["at once", "at the end"]


def writes(found: list[Point]) -> list[tuple[Point, Identity]]:
    return [(point, point.identity) for point in found if point.kind.startswith("write ") and point.identity]


def read_back(found: list[Point], identity: Identity) -> Point:
    collection = f"/{identity.kind.plural}"
    return next(
        point
        for point in found
        if point.kind.startswith("read back ")
        and point.address.path.startswith(f"/apis/{identity.kind.group}/")
        and point.address.path.endswith(collection)
    )


def put_back(bed: Bed, identity: Identity) -> None:
    before, live = bed.before.get(identity), bed.direct.read(identity)
    if before is None:
        assert live is not None
        bed.direct.delete(identity, uid=live["metadata"]["uid"])
    elif live is None:
        bed.direct.create(before, identity)
    else:
        bed.direct.patch(identity, diff.patch(content(live, identity.kind), before))


def without(bed: Bed, identity: Identity, mode: OnFailure) -> Expected:
    """How a run has to end of whose changes that one was put back."""
    others = {other: body for other, body in bed.after.items() if other != identity}
    state = others | {other: body for other, body in bed.before.items() if other == identity}
    if identity not in bed.after:  # somebody may create what was deleted; it is told
        return Expected(codes=frozenset({ExitCode.OK}), state=state)
    if mode is OnFailure.ROLLBACK:
        return Expected(codes=frozenset({ExitCode.ROLLED_BACK}), state=bed.before)
    if mode is OnFailure.CONTINUE:
        return Expected(codes=frozenset({ExitCode.PARTLY_APPLIED}), state=state)
    return Expected(codes=frozenset({ExitCode.ROLLBACK_INCOMPLETE}), state=state, recoverable=True)


@pytest.mark.parametrize("mode", OnFailure, ids=lambda mode: mode.value)
@pytest.mark.parametrize("moment", ["at once", "at the end"])
def test_a_policy_that_a_controller_puts_back_was_not_applied(
    bed: Bed, tally: Tally, moment: Moment, mode: OnFailure
) -> None:
    found = bed.points_of_apply()
    for point, identity in writes(found):

        def behave(exchange: Exchange, identity: Identity = identity) -> None:
            if moment == "at the end":
                put_back(bed, identity)
            answer = exchange.forward()
            if moment == "at once":
                put_back(bed, identity)
            exchange.send(answer)

        where = point if moment == "at once" else read_back(found, identity)
        bed.reset()
        bed.proxy.plan(behave, at=where.nth, matching=where.matching)
        ended = bed.apply(bed.run.with_(mode=mode.value))
        tally.count(f"put back {moment}: {point.kind}")
        case = f"{identity} put back {moment} in an apply that does {mode.value}"
        judge(bed, tally, case, ended, without(bed, identity, mode))
    assert tally.wrong == []


#: As whom a request is made that is not to be made for real.
REFUSED = {"impersonate-user": "refused", "impersonate-group": "system:masters"}


def refusing() -> list[JsonObject]:
    policy = admission_policy("refuses-for-real")
    rules = [
        {
            "apiGroups": ["kyverno.io", "policies.kyverno.io"],
            "apiVersions": ["*"],
            "operations": ["CREATE", "UPDATE", "DELETE"],
            "resources": ["*"],
        }
    ]
    policy["spec"] = {
        "matchConstraints": {"resourceRules": rules},
        "validations": [{"expression": "request.dryRun || request.userInfo.username != 'refused'"}],
    }
    binding = admission_binding("refuses-for-real", policy="refuses-for-real")
    binding["spec"]["validationActions"] = ["Deny"]
    return [policy, binding]


@pytest.fixture
def refusal(bed: Bed) -> Iterator[None]:
    """An admission that refuses what is REFUSED, but not in a dry run. Its like never judges admission policies."""
    api, foreign = bed.plane.api, bed.foreign
    for body in refusing():
        api.apply(body)
    probes = "/apis/kyverno.io/v1/clusterpolicies"
    end = time.monotonic() + 60
    while api.ask("POST", probes, cluster_policy("probe"), headers=REFUSED).ok:
        api.call("DELETE", f"{probes}/probe")
        assert time.monotonic() < end
    there = bed.objects()
    bed.foreign = {**foreign, **{identity_of(body): there[identity_of(body)] for body in refusing()}}
    yield
    bed.foreign = foreign
    for body in refusing():
        api.call("DELETE", api.path_of(body))


def as_refused(exchange: Exchange) -> None:
    exchange.send(exchange.forward(REFUSED))


@pytest.mark.usefixtures("refusal")
@pytest.mark.parametrize("mode", OnFailure, ids=lambda mode: mode.value)
def test_a_policy_that_is_refused_though_its_dry_run_passed(bed: Bed, tally: Tally, mode: OnFailure) -> None:
    found = bed.points_of_apply()
    dry_runs = {point.identity: point for point in found if point.kind.startswith("dry-run ")}
    for point, identity in writes(found):
        if identity.kind.group == ADMISSION:
            continue
        bed.reset()
        for where in (dry_runs[identity], point):
            bed.proxy.plan(as_refused, at=where.nth, matching=where.matching)
        ended = bed.apply(bed.run.with_(mode=mode.value))
        tally.count(f"refused: {point.kind}")
        case = f"{identity} refused in an apply that does {mode.value}"
        judge(bed, tally, case, ended, expected(bed, point, End.NOT_MADE, mode, order(found)), point=point)
    assert tally.wrong == []
