"""Pure: what pods and events say is in a Job's way, in words for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from renderer.manifest.jsontypes import JsonObject

_SHOWN_CHARACTERS: Final = 300
#: What a container waits for on its way to running; anything else is worth a remark.
_ORDINARY: Final = frozenset({"", "ContainerCreating", "PodInitializing", "Completed"})

#: Events that say no more than the Job's own status.
_OF_STATUS: Final = frozenset({"DeadlineExceeded", "BackoffLimitExceeded", "PodFailurePolicy"})


def of_pods(pods: Sequence[JsonObject]) -> str:
    """What is in the way of the pods: the latest one that has anything to tell is quoted."""
    latest = sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp") or ""), reverse=True)
    for pod in latest:
        for said in _of_pod(pod):
            return _short(f"Pod {pod['metadata']['name']}: {said}")
    return ""


def _of_pod(pod: JsonObject) -> Iterator[str]:
    status = pod.get("status") or {}
    if status.get("reason"):  # Evicted, NodeLost and the like: of the pod as a whole
        yield _joined(status.get("reason"), status.get("message"))
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        state = container.get("state") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
        if waiting.get("reason", "") not in _ORDINARY:
            yield f"container {container['name']} waits: {_joined(waiting.get('reason'), waiting.get('message'))}"
        if ended.get("exitCode"):
            told = _joined(ended.get("reason"), ended.get("message"))
            yield f"container {container['name']} exited with {ended['exitCode']}" + (f" ({told})" if told else "")
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            yield _joined(condition.get("reason"), condition.get("message"))


def of_events(events: Iterable[JsonObject], *, uid: str) -> str:
    """The latest warning about the Job of that uid, but for those that its status tells."""
    warnings = [
        event
        for event in events
        if event.get("type") == "Warning"
        and event.get("reason") not in _OF_STATUS
        and (event.get("involvedObject") or {}).get("uid") == uid
    ]
    if not warnings:
        return ""
    latest = max(warnings, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    return _short(_joined(latest.get("reason"), latest.get("message")))


def _joined(*parts: object) -> str:
    return ": ".join(str(part).strip() for part in parts if part)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]}…"
