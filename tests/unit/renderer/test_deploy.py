"""The manifests of what runs in the cluster: their values, their schedule, and the files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import structlog
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from renderer.cli import cli
from renderer.deploy import command, manifests, values
from renderer.deploy.schedule import cron
from renderer.errors import ConfigurationError
from renderer.manifest import yamlio
from renderer.manifest.jsontypes import Json

EXAMPLES: Final = Path(__file__).parents[3] / "ci" / "deploy"
REQUIRED: Final = ("image=registry.example/runner:1", "organization=acme", "cluster=prod")
EVERYTHING: Final = (*REQUIRED, "parts=sync,runner,fleet", "fleet-repository=https://git.example/policies.git")
_DAY: Final = 24 * 60


def of(*settings: str) -> dict[str, bytes]:
    return manifests.render(values.read((*REQUIRED, *settings)))


def objects(files: Mapping[str, bytes]) -> list[Any]:
    return [document.value for path, data in files.items() for document in yamlio.load(data, source=path)]


def _starts(schedule: str) -> list[int]:
    """The minutes of a day at which that schedule starts; it knows *, */N and one number."""

    def matches(field: str, number: int) -> bool:
        if field.startswith("*"):
            return number % int(field.partition("/")[2] or "1") == 0
        return number == int(field)

    minute, hour, *rest = schedule.split(" ")
    assert rest == ["*", "*", "*"]
    return [at for at in range(_DAY) if matches(minute, at % 60) and matches(hour, at // 60)]


class TestSchedule:
    def test_what_cron_says_is_that_interval_on_every_day(self) -> None:
        said = {minutes: schedule for minutes in range(1, 2 * _DAY) if (schedule := cron(minutes * 60))}
        assert set(said) == {
            1,
            2,
            3,
            4,
            5,
            6,
            10,
            12,
            15,
            20,
            30,
            *(60 * hours for hours in (1, 2, 3, 4, 6, 8, 12, 24)),
        }
        for minutes, schedule in said.items():
            assert _starts(schedule) == list(range(0, _DAY, minutes)), schedule

    @pytest.mark.parametrize(
        ("seconds", "schedule"),
        [
            (900, "*/15 * * * *"),
            (60, "* * * * *"),
            (3600, "0 * * * *"),
            (6 * 3600, "0 */6 * * *"),
            (86400, "0 0 * * *"),
        ],
    )
    def test_the_usual_ones(self, seconds: float, schedule: str) -> None:
        assert cron(seconds) == schedule

    @pytest.mark.parametrize("seconds", [0.5, 1, 30, 90, 7 * 60, 90 * 60, 5 * 3600, 48 * 3600])
    def test_what_cron_cannot_say(self, seconds: float) -> None:
        assert cron(seconds) is None


class TestValues:
    @pytest.mark.parametrize(
        ("setting", "said"),
        [
            ("imge=a:1", "Did you mean image?"),
            ("token=abc", "'token' is no value of these manifests"),
            ("image", "it takes KEY=VALUE"),
            ("image=nginx", "image: 'nginx' is not accepted; it takes an image with its tag"),
            ("image=a:1\n    privileged: true", "image:"),
            ("parts=sync,sync", "parts: 'sync,sync' is not accepted"),
            ("parts=", "parts: '' is not accepted"),
            ("namespace=Prod", "namespace: 'Prod' is not accepted"),
            ("sync-interval=15", "sync-interval: '15' is not accepted; it takes a duration"),
            ("sync-interval=0", "sync-interval: '0' is not accepted"),
            ("dry-run=yes", "dry-run: 'yes' is not accepted; it takes one of true, false"),
            ("on-failure=panic", "it takes one of rollback, continue, stop"),
            ("fleet-shards=0", "it takes a whole number from 1 to 1000"),
            ("fleet-shards=٣", "it takes a whole number from 1 to 1000"),
            ("cluster=..", "cluster: '..' is not accepted"),
            ("host=http://insights.example", "host: 'http://insights.example' is not accepted"),
        ],
    )
    def test_a_wrong_one_is_one_clear_error(self, setting: str, said: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            values.read((*REQUIRED, setting))
        assert said in str(caught.value)
        assert not caught.value.details

    def test_an_unknown_one_names_all_that_are_known(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            values.read((*REQUIRED, "colour=red"))
        assert all(value.key in str(caught.value) for value in values.VALUES)

    def test_all_mistakes_are_told_together(self) -> None:
        with pytest.raises(ConfigurationError, match="4 values are missing or wrong") as caught:
            values.read(["colour=red", "dry-run=maybe", "organization=acme"])
        assert [line.split(" ", 1)[0] for line in caught.value.details] == ["'colour'", "dry-run:", "image", "cluster"]

    @pytest.mark.parametrize("setting", ["host=https://me:hunter2@x.example", "fleet-repository=https://u:hunter2@x/y"])
    def test_what_may_hold_a_secret_is_not_shown(self, setting: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            values.read((*REQUIRED, setting))
        assert "hunter2" not in str(caught.value)

    def test_a_fleet_alone_needs_no_cluster(self) -> None:
        assert values.read(["image=a:1", "parts=fleet", "fleet-repository=ssh://git@x.example/y"])["cluster"] == ""
        with pytest.raises(ConfigurationError, match="fleet-repository is not set"):
            values.read(["image=a:1", "parts=fleet"])

    def test_the_last_counts(self) -> None:
        assert values.read((*REQUIRED, "log-level=debug", "log-level=error"))["log_level"] == "error"

    def test_help_lists_every_one(self) -> None:
        shown = CliRunner().invoke(cli, ["deploy", "--help"]).output
        assert all(f"\n  {value.key} " in shown for value in values.VALUES)


class TestManifests:
    @pytest.mark.parametrize("config", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
    def test_the_examples_are_what_the_command_renders(self, config: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        try:
            done = CliRunner().invoke(cli, ["deploy", "--config", str(config), "--out", str(out)])
        finally:
            structlog.reset_defaults()
        assert done.exit_code == 0, done.output
        kept = config.with_suffix("")
        assert {path.name: path.read_text() for path in kept.iterdir()} == {
            path.name: path.read_text() for path in out.iterdir()
        }, f"render it again: insights-renderer deploy --config {config} --out {kept}"

    def test_every_variant_has_an_example(self) -> None:
        names = {path.name for path in EXAMPLES.glob("*/*.yaml")}
        assert names == manifests.NAMES

    def test_the_stream_holds_what_the_folder_holds(self) -> None:
        files = of()
        stream = yamlio.load(command.stream(files).encode(), source="stdout")
        assert [document.value for document in stream] == objects(
            {path: data for path, data in files.items() if path != manifests.KUSTOMIZATION}
        )

    def test_an_interval_that_cron_cannot_say_becomes_a_deployment(self) -> None:
        kinds = {(body["kind"], body["metadata"]["name"]): body for body in objects(of("sync-interval=90m"))[:-1]}
        watch = kinds["Deployment", "kyverno-policy-sync"]["spec"]["template"]["spec"]["containers"][0]
        assert watch["command"] == ["insights-applier", "sync", "--watch"]
        assert {"name": "SYNC_INTERVAL", "value": "90m"} in watch["env"]
        assert kinds["CronJob", "kyverno-policy-sync"]["spec"]["suspend"] is True
        assert ("PodDisruptionBudget", "kyverno-policy-sync") not in kinds

    def test_a_fleet_at_such_an_interval_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="cron can't say every 7m"):
            of(*EVERYTHING, "sync-interval=7m")

    def test_no_manifest_holds_a_token(self) -> None:
        for body in objects(of(*EVERYTHING)):
            assert body["kind"] != "Secret"
            for variable in _variables(body):
                assert ("TOKEN" in variable["name"]) == ("value" not in variable), variable

    @given(st.data())
    def test_a_value_stays_one_value_whatever_it_holds(self, data: st.DataObject) -> None:
        plain = dict(values.read((*EVERYTHING, "image-pull-secret=registry", "max-delete=5", "create-namespace=true")))
        texts = sorted(name for name, value in plain.items() if isinstance(value, str))
        name = data.draw(st.sampled_from(texts))
        text = data.draw(st.text(st.characters(codec="utf-8"), min_size=1) | st.sampled_from(_NASTY))
        mark = "PLACE-OF-THE-VALUE"
        expected = [_replaced(body, mark, text) for body in objects(manifests.render({**plain, name: mark}))]
        assert objects(manifests.render({**plain, name: text})) == expected


_NASTY: Final = (
    "a\n- injected: true",
    "x: y",
    "# no comment",
    "--- ",
    "'\"",
    "[[ namespace ]]",
    "[% include 'sync.yaml.j2' %]",
    "{{ 1 }}",
    "no",
    "0o17",
    "1e3",
    "&a *a !b",
    "|\n  x",
    " ",
    "\ttab",
    "\u2028\u0085",
)


def _replaced(value: Json, mark: str, text: str) -> Json:
    if isinstance(value, dict):
        return {key: _replaced(item, mark, text) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, mark, text) for item in value]
    return value.replace(mark, text) if isinstance(value, str) else value


def _variables(value: Json) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield from value.get("env", ())
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _variables(item)


class TestWriting:
    def test_a_second_run_changes_nothing_and_removes_what_is_no_longer_rendered(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        command.write(out, of())
        assert not command.write(out, of())
        (out / "README.md").write_text("mine")
        changed = command.write(out, of("parts=sync"))
        assert changed.removed == ("runner-rbac.yaml", "runner.yaml")
        assert changed.changed == ("kustomization.yaml", "network-policies.yaml")
        assert (out / "README.md").read_text() == "mine"

    def test_a_file_that_is_not_ours_is_not_overwritten(self, tmp_path: Path) -> None:
        (tmp_path / "kustomization.yaml").write_text("resources: []\n")
        (tmp_path / "runner.yaml").write_text("mine\n")
        with pytest.raises(
            ConfigurationError, match=r"holds kustomization\.yaml, runner\.yaml, which `deploy` did not"
        ):
            command.write(tmp_path, of())
        assert sorted(path.name for path in tmp_path.iterdir()) == ["kustomization.yaml", "runner.yaml"]
        command_without_runner = of("parts=sync")
        (tmp_path / "kustomization.yaml").unlink()
        command.write(tmp_path, command_without_runner)
        assert (tmp_path / "runner.yaml").read_text() == "mine\n"
