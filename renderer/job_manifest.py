"""Pure: the Job that a CronJob and an on-demand request make together."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from renderer.errors import InputError
from renderer.manifest.jsontypes import JsonObject
from renderer.report_types import ReportType

#: How long a Job stays after its end, so that its result is read, and by people too.
TTL_SECONDS: Final = 600

_PREFIX: Final = "insights.fairwinds.com"
#: The label by which all Jobs of ours are found; its value is the report type.
LABEL_TYPE: Final = f"{_PREFIX}/on-demand-report-type"
LABEL_REQUEST: Final = f"{_PREFIX}/on-demand-job-id"
ANNOTATION_ORGANIZATION: Final = f"{_PREFIX}/organization"
ANNOTATION_CLUSTER: Final = f"{_PREFIX}/cluster"
#: What kubectl writes, too, to a Job that no schedule has made.
_BY_HAND: Final = ("cronjob.kubernetes.io/instantiate", "manual")

#: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-label-names; a pod's label has its
#: Job's name as the value.
_NAME_MAX: Final = 63
#: What every supported server takes as the name of a variable (C_IDENTIFIER is stricter, and not needed).
_VARIABLE: Final = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]*", re.ASCII)
_BEFORE_WORD: Final = re.compile(r"([A-Z]+)([A-Z][a-z])")
_BEFORE_CAPITAL: Final = re.compile(r"([a-z0-9])([A-Z])")
#: Where the kubelet would take $(NAME) for a variable's value, or $$ for one dollar sign.
_EXPANDED: Final = re.compile(r"\$(?=[$(])")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """What is asked for: a Job of that type, named after `key`: the request's id, or what else tells it from others.

    `options` are in the order in which they were given. `organization` and `cluster` are those of Insights; "" where
    it does not know of the Job.
    """

    key: str
    report_type: ReportType
    options: Mapping[str, str] = field(default_factory=dict)
    organization: str = ""
    cluster: str = ""

    @property
    def job_name(self) -> str:
        """The name of its Job, the same whenever it is asked for. A schedule makes no such name."""
        return f"{self.report_type.name}-on-demand-{self.key}"[:_NAME_MAX].rstrip("-.")


def render_job(cron_job: JsonObject, request: JobRequest) -> JsonObject:
    """The Job: the CronJob's template with the request's options, its time limit and a way back to the request.

    Raises InputError when the CronJob has no template of a Job or an option can't be a variable.
    """
    try:
        metadata, template = cron_job["metadata"], cron_job["spec"]["jobTemplate"]
        spec = copy.deepcopy(template["spec"])
        pod = spec["template"]["spec"]
        owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": metadata["name"], "uid": metadata["uid"]}
    except (KeyError, TypeError) as error:
        raise InputError(f"The CronJob {request.report_type.name} has no template of a Job.") from error
    variables = option_variables(request.options)
    for container in (*(pod.get("initContainers") or ()), *(pod.get("containers") or ())):
        if variables:
            container["env"] = _merged(container.get("env") or [], variables)
    spec["ttlSecondsAfterFinished"] = TTL_SECONDS
    spec["activeDeadlineSeconds"] = deadline_seconds(cron_job, request.report_type)
    if request.report_type.backoff_limit is not None:
        spec["backoffLimit"] = request.report_type.backoff_limit
    described = template.get("metadata") or {}
    labels = {LABEL_TYPE: request.report_type.name, LABEL_REQUEST: request.key}
    pod_metadata = spec["template"].setdefault("metadata", {}) or {}
    spec["template"]["metadata"] = {**pod_metadata, "labels": {**(pod_metadata.get("labels") or {}), **labels}}
    annotations = {
        _BY_HAND[0]: _BY_HAND[1],
        ANNOTATION_ORGANIZATION: request.organization,
        ANNOTATION_CLUSTER: request.cluster,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": request.job_name,
            "namespace": metadata["namespace"],
            "labels": {**(described.get("labels") or {}), **labels},
            "annotations": {
                **(described.get("annotations") or {}),
                **{name: value for name, value in annotations.items() if value},
            },
            # With `controller` the CronJob's history limit would delete the Job, perhaps before its result is read.
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


def deadline_seconds(cron_job: JsonObject, report_type: ReportType) -> int:
    """How long the Job may run: as long as its type may, or the CronJob's own Jobs, whichever is shorter."""
    own = cron_job["spec"]["jobTemplate"]["spec"].get("activeDeadlineSeconds")
    return report_type.timeout_seconds if own is None else min(report_type.timeout_seconds, int(own))


def is_job_of(job: JsonObject, request: JobRequest) -> bool:
    """Whether a Job that has the request's name was made for it, and not for anything else."""
    metadata = job["metadata"]
    annotations = metadata.get("annotations") or {}
    return bool(
        (metadata.get("labels") or {}).get(LABEL_REQUEST) == request.key
        and annotations.get(ANNOTATION_ORGANIZATION, "") == request.organization
        and annotations.get(ANNOTATION_CLUSTER, "") == request.cluster
    )


def option_variables(options: Mapping[str, str]) -> list[JsonObject]:
    """The options as variables of a container, in their order. Raises InputError that names what can't be one."""
    origins: dict[str, str] = {}
    variables = []
    for option, value in options.items():
        name = variable_name(option)
        if not _VARIABLE.fullmatch(name):
            raise InputError(
                f"The option {_shown(option)} can't be a variable.",
                hint="An option's name has letters, digits, - _ and . only, and no digit in front.",
            )
        if "\0" in value:
            raise InputError(f"The option {_shown(option)} has a null character, which no variable can hold.")
        if name in origins:
            raise InputError(f"The options {_shown(origins[name])} and {_shown(option)} are both the variable {name}.")
        origins[name] = option
        # What an option says is meant as it is said.
        variables.append({"name": name, "value": _EXPANDED.sub("$$", value)})
    return variables


def variable_name(option: str) -> str:
    """The variable that an option becomes: imagesToScan is IMAGES_TO_SCAN, HTTPRequestID is HTTP_REQUEST_ID."""
    words = _BEFORE_CAPITAL.sub(r"\1_\2", _BEFORE_WORD.sub(r"\1_\2", option))
    return words.upper()


def _merged(existing: list[JsonObject], variables: list[JsonObject]) -> list[JsonObject]:
    """The existing variables in their order, those of the same name replaced at their place; new ones at the end."""
    wanted = {variable["name"]: variable for variable in variables}
    merged = []
    placed: set[str] = set()
    for variable in existing:
        name = variable.get("name", "")
        if name not in wanted:
            merged.append(variable)
        elif name not in placed:
            placed.add(name)
            merged.append(dict(wanted[name]))
    return merged + [dict(variable) for variable in variables if variable["name"] not in placed]


def _shown(option: str) -> str:
    return repr(option if len(option) <= 60 else f"{option[:60]}…")
