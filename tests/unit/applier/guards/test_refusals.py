"""Limits of deletions as people write them, and what each refusal says: its code, what it is about, what allows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from applier.change import Refused
from applier.guards import refusals
from applier.guards.refusals import MaxDelete
from renderer.errors import ConfigurationError, ExitCode
from tests.support.golden import require_same

SUBJECTS = ("ClusterPolicy/a", "ClusterPolicy/b")


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [
        (None, MaxDelete(count=5, share=0.25), "5 and 25% of the owned ones"),
        ("0", MaxDelete(count=0), "0"),
        (" 10 ", MaxDelete(count=10), "10"),
        ("101", MaxDelete(count=101), "101"),
        ("0%", MaxDelete(share=0), "0% of the owned ones"),
        ("100%", MaxDelete(share=1), "100% of the owned ones"),
    ],
)
def test_a_limit_is_a_count_or_a_share(text: str | None, limit: MaxDelete, shown: str) -> None:
    assert MaxDelete.of(text) == limit
    assert str(limit) == shown


@pytest.mark.parametrize("text", ["", "-1", "1.5", "101%", "5 %", "many", "1234567890", "%"])
def test_a_limit_that_is_neither_is_refused_with_what_it_takes(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not accepted; it takes a count such as 10, or a share") as caught:
        MaxDelete.of(text)
    assert caught.value.message.startswith(repr(text))


@pytest.mark.parametrize(
    ("limit", "deletions", "owned", "exceeded"),
    [
        (MaxDelete(count=5, share=0.25), 6, 20, True),
        (MaxDelete(count=5, share=0.25), 6, 24, False),
        (MaxDelete(count=5, share=0.25), 5, 5, False),
        (MaxDelete(count=2), 2, 2, False),
        (MaxDelete(count=2), 3, 300, True),
        (MaxDelete(share=0.5), 2, 4, False),
        (MaxDelete(share=0.5), 3, 4, True),
        (MaxDelete(count=0), 1, 9, True),
        (MaxDelete(count=0), 0, 9, False),
        (MaxDelete(), 0, 9, False),
    ],
)
def test_a_limit_is_exceeded_by_more_than_it_says(limit: MaxDelete, deletions: int, owned: int, exceeded: bool) -> None:
    assert limit.exceeded(deletions, owned) is exceeded


def test_emptying_says_how_many_of_how_many() -> None:
    assert "would delete all 2 that it owns here." in refusals.empty_set(SUBJECTS, 2).message
    assert "would delete 2 of the 3 that it owns here." in refusals.empty_set(SUBJECTS, 3).message


def test_too_many_deletions_say_how_many_and_what_limit() -> None:
    found = refusals.too_many_deletions(SUBJECTS, 3, MaxDelete(count=1))
    assert found.message == "2 of 3 owned policies would be deleted, more than the limit of 1."
    assert "--max-delete 2 (INSIGHTS_MAX_DELETE=2)" in found.hint


Refusing = Callable[[Sequence[str]], Refused]
REFUSALS: tuple[tuple[Refusing, ExitCode, str, str], ...] = (
    (lambda some: refusals.empty_set(some, 2), ExitCode.EMPTY_SET, "wants no policy at all", "--allow-empty"),
    (
        lambda some: refusals.too_many_deletions(some, 2, MaxDelete(count=1)),
        ExitCode.TOO_MANY_DELETIONS,
        "would be deleted",
        "--max-delete",
    ),
    (refusals.not_owned, ExitCode.NOT_OWNED, "not owned by Insights", "--adopt"),
    (refusals.generated, ExitCode.NOT_OWNED, "kept by a controller", "Rename"),
    (refusals.terminating, ExitCode.TERMINATING, "finalizers", "metadata.finalizers"),
    (refusals.weakens, ExitCode.WEAKENS, "denies requests", "--allow-weaken"),
    (refusals.needs_replacing, ExitCode.NEEDS_REPLACING, "deleted and created anew", "--allow-replace"),
    (refusals.self_blocking, ExitCode.BLOCKS_ITSELF, "its own next writes", "--allow-self-block"),
    (refusals.kind_unavailable, ExitCode.KIND_UNAVAILABLE, "can't be managed on this cluster", "grant"),
)


@pytest.mark.parametrize(("refuse", "code", "told", "way"), REFUSALS)
def test_a_refusal_says_what_it_is_about_and_what_allows_it(
    refuse: Refusing, code: ExitCode, told: str, way: str
) -> None:
    found = refuse(list(SUBJECTS))
    assert (found.code, found.subjects) == (code, SUBJECTS)
    assert told in found.message
    assert way in found.hint
    if way.startswith("--"):
        assert f"INSIGHTS_{way.removeprefix('--').replace('-', '_').upper()}=" in found.hint


def test_every_refusal_reads_as_it_was_written_down() -> None:
    told = [refuse(list(SUBJECTS)) for refuse, *_ in REFUSALS]
    texts = [f"{found.code:d}\n{found.message}\n{found.hint}\n" for found in told]
    require_same(
        Path(__file__).parent / "golden" / "refusals.txt", "\n".join([*texts, refusals.weakens_note(SUBJECTS), ""])
    )


def test_a_plan_says_for_which_policies_apply_needs_the_flag() -> None:
    note = refusals.weakens_note(SUBJECTS)
    assert "--allow-weaken (INSIGHTS_ALLOW_WEAKEN=true)" in note
    assert note.endswith("ClusterPolicy/a, ClusterPolicy/b")
