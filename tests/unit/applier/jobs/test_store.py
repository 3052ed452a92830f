"""The record's store: one leads, nobody writes over another's record, and nothing that was claimed gets lost."""

from __future__ import annotations

import pytest

from applier.jobs.record import Entry, Record
from applier.jobs.store import NAME
from applier.ports import Forbidden, ServerRefused
from renderer.errors import InputError, RemoteError
from renderer.manifest.jsontypes import JsonObject
from tests.support.jobs_world import LEAD_SECONDS, World, refused

JOB, OTHER = Entry(id=1, report_type="trivy"), Entry(id=2, report_type="nova")


def holding(record: Record | None, *entries: Entry) -> Record:
    assert record is not None
    return record.with_added(entries)


def test_who_comes_first_leads_until_it_leaves() -> None:
    world = World()
    first, second = world.store(), world.store()
    led = first.lead()
    assert (second.lead(), second.leader) == (None, "runner-1")
    first.save(holding(led, JOB), leave=True)
    assert holding(second.lead()).entries == (JOB,)
    assert (second.leader, world.record().leader) == ("runner-2", "runner-2")


def test_a_leader_is_dead_when_its_record_stood_still_for_so_long_and_not_before() -> None:
    world = World()
    first, second = world.store(), world.store()
    led = holding(first.lead(), JOB)
    assert second.lead() is None
    world.time += LEAD_SECONDS - 1
    led = holding(first.save(led))  # a sign of life
    assert second.lead() is None
    world.time += LEAD_SECONDS - 1
    assert second.lead() is None
    world.time += 1
    assert holding(second.lead()).entries == (JOB,)
    assert first.save(led) is None
    assert (first.leader, world.record().leader) == ("runner-2", "runner-2")


def test_who_has_lost_the_lead_hands_over_what_it_claimed_and_changes_nothing_else() -> None:
    world = World()
    first, second = world.store(), world.store()
    led = holding(first.save(holding(first.lead(), JOB)))
    second.lead()
    world.time += LEAD_SECONDS
    taken = holding(second.lead())
    second.save(taken.without([JOB.id]))  # done with it meanwhile
    assert first.save(holding(led, OTHER)) is None
    assert world.record().entries == (OTHER,)
    assert world.record().leader == "runner-2"
    # The new leader, which knows nothing of it, keeps it with its next write.
    assert holding(second.save(taken.without([JOB.id]))).entries == (OTHER,)


def test_of_two_that_begin_at_once_one_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    first, second = world.store(), world.store()
    put = world.put

    def late(body: JsonObject) -> JsonObject:
        monkeypatch.setattr(world, "put", put)
        second.lead()
        return put(body)

    monkeypatch.setattr(world, "put", late)
    assert first.lead() is None
    assert world.record().leader == "runner-2"
    assert first.lead() is None
    assert first.leader == "runner-2"


def test_a_record_that_somebody_deletes_is_made_anew() -> None:
    world = World()
    store = world.store()
    led = holding(store.lead(), JOB)
    world.config_map = None
    assert holding(store.save(led)).entries == (JOB,)
    assert world.record().entries == (JOB,)


def test_what_is_of_another_cluster_of_insights_is_dropped() -> None:
    world = World()
    old = world.store(organization="others")
    old.save(holding(old.lead(), JOB), leave=True)
    assert holding(world.store().lead()).entries == ()
    assert (world.record().organization, world.record().entries) == ("acme", ())


def test_a_record_that_is_none_is_refused_and_left_alone() -> None:
    world = World()
    world.put({"metadata": {"name": NAME}, "data": {"record.json": "mine"}})
    kept = world.config_map
    with pytest.raises(InputError, match=f"The ConfigMap {NAME} is no record of on-demand jobs"):
        world.store().lead()
    assert world.config_map == kept


def test_missing_rights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()

    def forbid(_: JsonObject) -> JsonObject:
        raise Forbidden("no", hint="", status=refused(403).status)

    monkeypatch.setattr(world, "put", forbid)
    with pytest.raises(Forbidden, match="may not keep the record of on-demand jobs") as raised:
        world.store().lead()
    assert "get, create and update on configmaps" in raised.value.hint


@pytest.mark.parametrize("code", [400, 422])
def test_a_refusal_for_what_it_says_is_no_matter_of_who_leads(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    world = World()
    store = world.store()
    led = holding(store.lead())

    def refuse(_: JsonObject) -> JsonObject:
        raise refused(code)

    monkeypatch.setattr(world, "put", refuse)
    with pytest.raises(ServerRefused):
        store.save(led)


def test_a_record_that_never_stands_still_is_given_up_for_this_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    store = world.store()
    led = holding(store.lead())
    put = world.put

    def contended(body: JsonObject) -> JsonObject:
        assert world.config_map is not None
        put(world.config_map)  # somebody touches it, and changes nothing
        return put(body)

    monkeypatch.setattr(world, "put", contended)
    with pytest.raises(RemoteError, match="changes all the time"):
        store.save(led)


def test_what_is_kept_for_certain_is_known() -> None:
    world = World()
    store = world.store()
    led = holding(store.lead())
    assert not store.has_kept(JOB)
    store.save(holding(led, JOB))
    assert store.has_kept(JOB)
