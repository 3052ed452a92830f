"""Both stores keep one contract; only a head makes a journal, and what has none is rubbish."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import stamina

from applier.journal.configmaps import ConfigMapStore
from applier.journal.format import Fencing, JournalError
from applier.journal.found import journals
from applier.journal.journal import Run, StoredJournal, clean_up
from applier.journal.key import Key
from applier.journal.sealed import Trust
from applier.journal.store import DirectoryStore, Store
from applier.ports import ServerRefused, Status
from renderer.errors import ConfigurationError, Failure, Locked, NotPermitted, RemoteError
from tests.support.journals import SimulatedConfigMaps
from tests.unit.applier.journal.test_format import CHANGES, kept

KEY = Key(b"the token of Insights")
LEASE = "4f0c-lease"
RUN = Run(fencing=Fencing(lease=LEASE, transitions=3), holder="host_1_ab", cluster={"a": "1"}, mode="rollback")


@pytest.fixture
def config_maps() -> SimulatedConfigMaps:
    return SimulatedConfigMaps()


@pytest.fixture(params=["configmaps", "directory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, config_maps: SimulatedConfigMaps) -> Store:
    return DirectoryStore(tmp_path / "journal") if request.param == "directory" else ConfigMapStore(config_maps, "here")


def begun(store: Store, *, supersedes: tuple[str, ...] = ()) -> StoredJournal:
    journal = StoredJournal(store, lambda: RUN, key=KEY, supersedes=supersedes)
    journal.begin(CHANGES)
    return journal


def test_a_journal_is_found_as_it_was_begun_and_is_gone_once_it_is_over(store: Store) -> None:
    for end in (StoredJournal.commit, StoredJournal.discard):
        journal = begun(store)
        (found,) = journals(store, KEY, cluster={}, lease=LEASE)
        assert (found.problem, found.trust, found.committed) == ("", Trust.VERIFIED, False)
        assert found.changes == tuple(map(kept, CHANGES))
        end(journal)
        assert store.heads() == {}
        assert store.headless(LEASE) == set()


def test_without_changes_nothing_is_kept(store: Store) -> None:
    journal = StoredJournal(store, lambda: RUN, key=KEY)
    journal.begin([])
    assert store.heads() == {}
    journal.commit()
    journal.discard()


def test_what_is_superseded_stays_until_the_later_one_is_committed(store: Store) -> None:
    begun(store)
    (older,) = store.heads()
    later = begun(store, supersedes=(older,))
    first, second = journals(store, KEY, cluster={}, lease=LEASE)
    assert (first.transaction != older, second.transaction) == (True, older)
    later.discard()
    assert list(store.heads()) == [older]
    begun(store, supersedes=(older,)).commit()
    assert store.heads() == {}
    begun(store)
    StoredJournal(store, lambda: RUN, key=KEY, supersedes=tuple(store.heads())).commit()  # nothing had to be changed
    assert store.heads() == {}
    assert store.headless(LEASE) == set()


def test_chunks_without_a_head_are_rubbish(store: Store) -> None:
    store.put_chunk("4f0cleas-1-aa", "0" * 64, b"x")
    begun(store)
    assert store.headless(LEASE) == {"4f0cleas-1-aa"}
    store.remove_chunks("4f0cleas-1-aa")
    assert store.headless(LEASE) == set()
    assert not journals(store, KEY, cluster={}, lease=LEASE)[0].problem


def test_a_directory_that_is_shared_by_mistake_keeps_the_other_clusters_chunks(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put_chunk("another1-1-aa", "0" * 64, b"x")
    assert store.headless(LEASE) == set()


def test_a_missing_chunk_and_another_cluster_are_problems(store: Store) -> None:
    begun(store)
    (found,) = journals(store, KEY, cluster={"a": "2"}, lease="another")
    assert found.problem == "it is of another cluster."
    assert not journals(store, KEY, cluster={"a": "1"}, lease="another")[0].problem
    assert journals(store, KEY, cluster={"b": "1"}, lease="another")[0].problem  # nothing that both know
    store.remove_chunks(found.transaction)
    (found,) = journals(store, KEY, cluster={}, lease=LEASE)
    assert found.problem == "chunk 1 of 1 is missing."


def test_a_head_under_another_name_is_a_problem(store: Store) -> None:
    begun(store)
    ((_, data),) = store.heads().items()
    store.put_head("other-1-aa", data)
    problems = {found.transaction: found.problem for found in journals(store, KEY, cluster={}, lease=LEASE)}
    assert problems["other-1-aa"] == "its head is that of another journal."


def test_a_committed_head_with_chunks_left_is_cleaned_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = begun(store)
    with monkeypatch.context() as patched:
        patched.setattr(type(store), "remove_chunks", lambda *_: (_ for _ in ()).throw(RemoteError("away")))
        journal.commit()  # what is done is done: tidying up is no failure of it
    (found,) = journals(store, KEY, cluster={}, lease=LEASE)
    assert found.committed
    assert found.head is not None
    clean_up(store, found.head)
    assert store.heads() == {}
    assert store.headless(LEASE) == set()


def test_a_run_that_has_to_stop_makes_no_journal(store: Store) -> None:
    steps = iter(["the chunk"])

    def go_on() -> None:
        if not next(steps, ""):
            raise Failure("it has to stop")

    journal = StoredJournal(store, lambda: RUN, key=KEY, go_on=go_on)
    with pytest.raises(Failure, match="has to stop"):
        journal.begin(CHANGES)
    assert store.heads() == {}
    assert store.headless(LEASE) == set()


def failing_once(error: Exception) -> Callable[[], None]:
    errors = iter([error])

    def fail() -> None:
        for waiting in errors:
            raise waiting

    return fail


@pytest.mark.parametrize("moment", ["before_write", "after_write"])
@pytest.mark.parametrize("number", range(5))
def test_a_lost_answer_is_no_failure(config_maps: SimulatedConfigMaps, number: int, moment: str) -> None:
    count = iter(range(100))
    fail = failing_once(RemoteError("the connection broke"))
    setattr(config_maps, moment, lambda: next(count) == number and fail())
    with stamina.set_testing(True, attempts=4):
        begun(ConfigMapStore(config_maps, "here")).commit()
    assert config_maps.objects == {}


@pytest.mark.parametrize("number", range(5))
def test_no_write_starts_nor_is_repeated_once_the_lock_is_lost(config_maps: SimulatedConfigMaps, number: int) -> None:
    count = iter(range(100))
    writes: list[bool] = []
    lost: list[bool] = []

    def write() -> None:
        writes.append(not lost)
        if next(count) == number:
            lost.append(True)
            raise RemoteError("the connection broke")

    config_maps.before_write = write
    store = ConfigMapStore(config_maps, "here").fenced(lambda: not lost)
    with stamina.set_testing(True, attempts=4), suppress(Locked):
        begun(store).commit()
    assert writes == [True] * (number + 1)
    with pytest.raises(Locked):
        store.put_head("late", b"{}")


def test_a_directory_is_not_written_to_once_the_lock_is_lost(tmp_path: Path) -> None:
    with pytest.raises(Locked):
        begun(DirectoryStore(tmp_path / "journal").fenced(lambda: False))
    assert not list(tmp_path.iterdir())


def test_what_the_server_refuses_is_told_and_leaves_nothing(config_maps: SimulatedConfigMaps) -> None:
    store = ConfigMapStore(config_maps, "nowhere")
    for error, expected, words in (
        (NotPermitted("403"), NotPermitted, "--journal DIR"),
        (ServerRefused(Status(code=404, reason="NotFound", message="no namespace")), ConfigurationError, "nowhere"),
        (ServerRefused(Status(code=422, reason="Invalid", message="denied")), ServerRefused, "can't be kept"),
    ):
        config_maps.before_write = failing_once(error)
        with pytest.raises(expected) as raised:
            begun(store)
        assert words in str(raised.value)
        assert config_maps.objects == {}


def test_a_head_that_somebody_removed_is_not_committed(config_maps: SimulatedConfigMaps) -> None:
    store = ConfigMapStore(config_maps, "here")
    journal = begun(store)
    config_maps.objects.clear()
    with pytest.raises(JournalError, match="removed by somebody else"):
        journal.commit()


def test_a_directory_that_cant_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=f"directory {tmp_path}/file/x can't be used.*Not a directory"):
        begun(DirectoryStore(tmp_path / "file" / "x"))
