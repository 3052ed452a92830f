"""Every state that disturbed runs can leave comes to rest as all or nothing; what breaks the protocol is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from applier.journal import journal
from applier.journal.sealed import chunk_digest
from applier.journal.store import Store
from applier.ports import NoJournal
from renderer.manifest.identity import Identity
from renderer.manifest.jsontypes import Json, JsonObject
from tests.support.model import APPLY, RECOVER, SYNC, Broken, Search, Trouble, World, start
from tests.support.simulator import SimulatedCluster


def test_every_state_that_one_disturbed_run_can_leave_comes_to_rest() -> None:
    found = Search().explore(1)
    # The one late write is reached: what is proven is not proven of nothing.
    assert (found.runs > 400, len(found.seen) > 40, found.late > 0) == (True, True, True)


def test_a_head_that_arrives_after_its_chunks_were_swept_is_for_people_or_the_next_sync() -> None:
    # The third write of a run: the Lease, one chunk, and then its head.
    frozen = Trouble(at=3, how="freeze", other=RECOVER)
    world, _ = Search().go(start(), APPLY, frozen)
    assert world.intrusions == ["apply: write_config_map"]
    for kind, left in ((APPLY, 1), (RECOVER, 1), (SYNC, 0)):
        world, _ = Search().go(world.state(), kind)
        assert len(world.maps.objects) == left
        assert (world.cluster.contents() == start_contents()) is (kind is not SYNC)


def start_contents() -> dict[Identity, JsonObject]:
    return World(start()).cluster.contents()


class Careless(SimulatedCluster):
    """As if nothing were asked of an object before it is written."""

    def patch(self, identity: Identity, operations: Sequence[Json], *, dry_run: bool = False) -> JsonObject:
        version = self._found(identity)["metadata"]["resourceVersion"]
        kept = [one for one in operations if isinstance(one, dict) and not _guards(one)]
        now = {"op": "replace", "path": "/metadata/resourceVersion", "value": version}
        return super().patch(identity, [now, *kept], dry_run=dry_run)

    def delete(self, identity: Identity, *, uid: str, resource_version: str = "", dry_run: bool = False) -> None:
        del resource_version
        super().delete(identity, uid=uid, dry_run=dry_run)


def _guards(operation: JsonObject) -> bool:
    return bool(operation["op"] == "test" or operation["path"] == "/metadata/resourceVersion")


def without_preconditions(world: World) -> None:
    versions = world.cluster._versions
    world.cluster = Careless(world.cluster.objects)
    world.cluster._versions = versions


def without_a_journal(world: World) -> None:
    world.journal = lambda _journal: NoJournal()


def without_a_look_at_the_lease(world: World) -> None:
    world.fenced = False


@pytest.mark.parametrize(
    ("mutant", "what"),
    [
        (without_preconditions, "an edit of .* is lost"),
        (without_a_journal, "half of it"),
        (without_a_look_at_the_lease, "two were inside"),
    ],
)
def test_a_run_that_does_less_is_found(mutant: Callable[[World], None], what: str) -> None:
    with pytest.raises(Broken, match=what):
        Search(mutant=mutant).explore(1)


def test_a_journal_whose_head_comes_first_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def put(store: Store, name: str, chunks: Sequence[bytes], head: bytes, go_on: Callable[[], None]) -> None:
        go_on()
        store.put_head(name, head)
        for chunk in chunks:
            store.put_chunk(name, chunk_digest(chunk), chunk)

    monkeypatch.setattr(journal, "put", put)
    with pytest.raises(Broken, match="a journal is left"):
        Search().explore(1)
