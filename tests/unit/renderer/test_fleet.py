"""The list of a fleet, its shards, and what is made of its outcomes: all decided without a server."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderer import snapshot
from renderer.errors import ConfigurationError, DocumentErrors, ExitCode, Failure, InputError
from renderer.fleet.file import Member, left_over, parse_fleet, read_fleet
from renderer.fleet.run import Outcome, Tally, failure_table
from renderer.fleet.shards import Shard, parse_shard, shard_of_job
from renderer.fleet.writers import Failed, Writers, Written, cores, write
from renderer.publish import Target
from tests.support.policies import answer, cluster_policy

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)


def member(cluster: str = "prod", *, organization: str = "acme", path: str = "") -> Member:
    return Member(organization=organization, cluster=cluster, path=path or f"{organization}/{cluster}")


def parse(text: str, organization: str | None = None) -> list[Member]:
    return parse_fleet(text.encode(), source="fleet.yaml", organization=organization)


def said(text: str, organization: str | None = None) -> list[str]:
    with pytest.raises(DocumentErrors) as raised:
        parse(text, organization)
    assert raised.value.code == ExitCode.INPUT
    return [str(problem) for problem in raised.value.problems]


# The list ------------------------------------------------------------------------------------------------------------


def test_clusters_are_read_in_their_order_with_one_form_of_each_path() -> None:
    text = "- {organization: b, cluster: two, path: b/./two/}\n- cluster: one\n  path: one\n"
    assert parse(text, "acme") == [member("two", organization="b"), member("one", path="one")]


def test_json_is_a_list_too() -> None:
    assert parse('[{"organization": "acme", "cluster": "prod", "path": "p"}]') == [member(path="p")]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/etc", "below --out"),
        ("a/../../b", "without .."),
        ("..", "without .."),
        (".", "below --out"),
        (".git/hooks", "begin with a dot"),
        ("a/.rendering", "begin with a dot"),
        ('"a\\0b"', "control character"),
        ('"a\\nb"', "control character"),
        ('"a /b"', "with a space"),
        ("''", "is not set"),
        ("null", "is not set"),
        ("12", "put it in quotes"),
        ("[a]", "put it in quotes"),
    ],
)
def test_a_path_stays_below_the_directory_and_is_seen(path: str, words: str) -> None:
    (problem,) = said(f"- organization: acme\n  cluster: prod\n  path: {path}\n")
    assert problem.startswith("fleet.yaml:3: path: ")
    assert words in problem


@pytest.mark.parametrize(("name", "words"), [("..", "not . or .."), ('" x"', "spaces around"), ("7", "in quotes")])
@pytest.mark.parametrize("field", ["organization", "cluster"])
def test_a_name_is_one_that_insights_may_have(field: str, name: str, words: str) -> None:
    values = {"organization": "acme", "cluster": "prod", "path": "p"} | {field: name}
    (problem,) = said("- path: p\n" + "".join(f"  {key}: {values[key]}\n" for key in ("organization", "cluster")))
    line = {"organization": 2, "cluster": 3}[field]
    assert problem.startswith(f"fleet.yaml:{line}: {field}: ")
    assert words in problem


def test_everything_that_is_wrong_is_told_in_one_report_with_its_line() -> None:
    text = """\
- {organization: acme, cluster: one, path: a}
- {organization: acme, cluster: one, path: b}
- {organization: acme, cluster: two, path: a}
- {organization: acme, cluster: three, path: a/x/deep}
- {organization: acme, cluster: four, path: a-x, colour: red}
- {cluster: five, path: ..}
- prod
- {organization: acme, path: six}
"""
    assert said(text) == [
        "fleet.yaml:2: cluster: acme/one is listed twice: line 1 has it too",
        "fleet.yaml:3: path: 'a' is used twice: line 1 has it too",
        "fleet.yaml:4: path: 'a/x/deep' lies inside 'a', the path of line 1",
        "fleet.yaml:5: colour: is not known; an item has organization, cluster, path",
        "fleet.yaml:6: organization: is not set, and --organization (FAIRWINDS_ORG) is not either",
        "fleet.yaml:6: path: '..' is not accepted; it takes the path of a folder below --out, without ..",
        "fleet.yaml:7: item 7 is not a map of organization, cluster, path",
        "fleet.yaml:8: cluster: is not set",
    ]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_a_folder_in_anothers_is_found_in_any_order(order: tuple[int, ...]) -> None:
    paths = ["a", "a-b", "a/b"]
    text = "".join(f"- {{organization: acme, cluster: c{i}, path: {paths[i]}}}\n" for i in order)
    (problem,) = said(text)
    assert "'a/b' lies inside 'a'" in problem
    assert problem.startswith(f"fleet.yaml:{order.index(2) + 1}: ")


@pytest.mark.parametrize("text", ["", "[]\n", "a: 1\n", "prod\n", "[]\n---\n[]\n", "- a\n---\n- b\n"])
def test_what_is_no_list_is_refused(text: str) -> None:
    assert said(text)


def test_yaml_that_kubernetes_would_not_read_is_refused_with_its_line() -> None:
    (problem,) = said("- cluster: one\n  cluster: two\n")
    assert problem.startswith("fleet.yaml:2:")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--clusters: .*none\.yaml can't be read: No such file"):
        read_fleet(tmp_path / "none.yaml", organization=None)
    with pytest.raises(InputError, match="Is a directory"):
        read_fleet(tmp_path, organization=None)


def test_folders_of_clusters_that_are_gone_are_found_and_only_those(tmp_path: Path) -> None:
    for path in ("acme/prod", "acme/gone", "gone/deep/er", ".hidden/gone", "acme/prod/inside"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / snapshot.LOCK).write_text("{}")
    (tmp_path / "docs").mkdir()
    assert list(left_over(tmp_path, [member()])) == ["acme/gone", "gone/deep/er"]
    assert list(left_over(tmp_path / "none", [member()])) == []


# Shards --------------------------------------------------------------------------------------------------------------


@given(st.sets(st.tuples(NAMES, NAMES), max_size=60), st.integers(1, 12))
def test_the_shards_hold_each_cluster_exactly_once(clusters: set[tuple[str, str]], count: int) -> None:
    parts = [{pair for pair in clusters if Shard(index=index, count=count).holds(*pair)} for index in range(count)]
    assert set().union(*parts) == clusters
    assert sum(map(len, parts)) == len(clusters)


def test_a_cluster_is_in_the_shard_that_it_has_always_been_in() -> None:
    found = [next(i for i in range(7) if Shard(index=i, count=7).holds("acme", f"c{n}")) for n in range(12)]
    assert found == [0, 3, 0, 3, 5, 0, 3, 4, 1, 0, 0, 4]


def test_a_thousand_clusters_are_shared_fairly() -> None:
    held = [sum(Shard(index=i, count=4).holds("acme", f"cluster-{n}") for n in range(1000)) for i in range(4)]
    assert min(held) > 200


def test_names_that_join_to_one_text_are_two_clusters() -> None:
    pairs = [("a/b", "c"), ("a", "b/c")]
    assert len({tuple(Shard(index=i, count=64).holds(*pair) for i in range(64)) for pair in pairs}) == 2


@given(st.integers(1, 100_000).flatmap(lambda count: st.tuples(st.integers(0, count - 1), st.just(count))))
def test_a_shard_is_read_as_it_is_written(numbers: tuple[int, int]) -> None:
    shard = Shard(index=numbers[0], count=numbers[1])
    assert parse_shard(str(shard)) == shard
    assert shard_of_job({"JOB_COMPLETION_INDEX": str(numbers[0]), "INSIGHTS_SHARDS": str(numbers[1])}) == shard


@pytest.mark.parametrize(
    "text", ["", "1", "/", "4/4", "5/4", "-1/4", "0/0", "a/4", "0/4/2", " 0/4", "+0/4", "00/4", "٠/4", "0/100001"]
)
def test_what_is_no_shard_is_shown_with_what_is_accepted(text: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse_shard(text)
    assert repr(text) in raised.value.message
    assert "I/N with I from 0 to N-1" in raised.value.message


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"JOB_COMPLETION_INDEX": "0"}, ("JOB_COMPLETION_INDEX is '0'", "INSIGHTS_SHARDS is not set")),
        ({"INSIGHTS_SHARDS": "4"}, ("INSIGHTS_SHARDS is '4'", "JOB_COMPLETION_INDEX is not set")),
        ({"JOB_COMPLETION_INDEX": "4", "INSIGHTS_SHARDS": "4"}, ("JOB_COMPLETION_INDEX: '4'", "0 to 3")),
        ({"JOB_COMPLETION_INDEX": "x", "INSIGHTS_SHARDS": "4"}, ("JOB_COMPLETION_INDEX: 'x'", "0 to 3")),
        ({"JOB_COMPLETION_INDEX": "0", "INSIGHTS_SHARDS": "many"}, ("INSIGHTS_SHARDS: 'many'", "1 to 100000")),
        ({"JOB_COMPLETION_INDEX": "0", "INSIGHTS_SHARDS": "0"}, ("INSIGHTS_SHARDS: '0'", "1 to 100000")),
    ],
)
def test_a_jobs_variables_are_named_with_their_value_and_what_they_take(
    variables: dict[str, str], words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        shard_of_job(variables)
    for word in words:
        assert word in raised.value.message


def test_without_a_job_everything_is_ours() -> None:
    assert shard_of_job({}) == shard_of_job({"JOB_COMPLETION_INDEX": ""}) == Shard(index=0, count=1)
    assert Shard().holds("acme", "prod")


# Outcomes ------------------------------------------------------------------------------------------------------------

WRITTEN = Written(policies=3, digest="d", added=0, changed=0, removed=0, extra=())


def tally(*results: Written | Failed) -> Tally:
    made = Tally(total=len(results))
    for number, result in enumerate(results):
        made.add(Outcome(member=member(f"c{number}"), result=result))
    return made


def failed(code: ExitCode, *details: str) -> Failed:
    return Failed(code=code, message=f"It failed with {int(code)}.", details=details, hint="Mend it.")


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([], ExitCode.OK),
        ([WRITTEN], ExitCode.OK),
        ([WRITTEN, failed(ExitCode.INPUT)], ExitCode.PARTLY_APPLIED),
        ([failed(ExitCode.INPUT), failed(ExitCode.INPUT)], ExitCode.INPUT),
        ([failed(ExitCode.NOT_PERMITTED)], ExitCode.NOT_PERMITTED),
        ([failed(ExitCode.INPUT), failed(ExitCode.UNAVAILABLE)], ExitCode.PARTLY_APPLIED),
    ],
)
def test_the_exit_code_says_whether_all_some_or_none_are_done(results: list[Written | Failed], code: ExitCode) -> None:
    assert tally(*results).exit_code == code


def test_the_failures_are_a_table_in_the_order_of_the_clusters() -> None:
    details = tuple(f"line {number}" for number in range(5))
    rows = [(member("zz"), failed(ExitCode.UNAVAILABLE)), (member("a"), failed(ExitCode.INPUT, *details))]
    assert list(failure_table(rows)) == [
        "CLUSTER  WHAT HAPPENED, AND WHAT TO DO",
        "acme/a   It failed with 65.",
        "         line 0",
        "         line 1",
        "         line 2",
        "         … and 2 more, which the log has",
        "         Mend it.",
        "acme/zz  It failed with 69.",
        "         Mend it.",
    ]
    assert list(failure_table([])) == []


def test_a_failure_of_ten_thousand_lines_is_kept_short() -> None:
    kept = Failed.of(Failure("It failed.", details=[f"line {number}" for number in range(10_000)]))
    assert len(kept.details) == 21
    assert kept.details[-1] == "… and 9980 more"


# Writers -------------------------------------------------------------------------------------------------------------


def target(directory: Path) -> Target:
    return Target(directory=directory, organization="acme", cluster="prod")


def test_a_defect_while_writing_is_a_failure_and_no_exception(tmp_path: Path) -> None:
    found = write(None, target(tmp_path))  # type: ignore[arg-type]  # the defect
    assert isinstance(found, Failed)
    assert found.code == ExitCode.DEFECT
    assert "defect" in found.message


def test_a_process_that_dies_is_a_failure_of_one_cluster_and_the_next_gets_a_new_one(tmp_path: Path) -> None:
    data = answer(cluster_policy()).encode()
    with Writers(1) as writers, writers.one() as writer:
        first = writer.write(data, target(tmp_path / "one"))
        process = writer._process
        assert process is not None
        process.kill()
        process.join()
        second = writer.write(data, target(tmp_path / "two"))
        third = writer.write(data, target(tmp_path / "three"))
    assert isinstance(first, Written)
    assert isinstance(second, Failed)
    assert second.code == ExitCode.UNAVAILABLE
    assert "signal 9" in second.message
    assert str(tmp_path / "two") in second.message
    assert isinstance(third, Written)
    assert not (tmp_path / "two").exists()


def test_a_writer_that_is_closed_leaves_no_process(tmp_path: Path) -> None:
    writers = Writers(2)
    with writers, writers.one() as writer:
        writer.write(answer(cluster_policy()).encode(), target(tmp_path / "one"))
        process = writer._process
    assert process is not None
    assert process.exitcode == 0


def test_there_is_a_core() -> None:
    assert cores() >= 1
