"""Somebody else, who edits a policy in the midst of a run."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from ci.testbed.api import Api
from renderer.manifest.jsontypes import JsonObject
from tests.faults.bed import Bed
from tests.support.policies import cluster_policy, identity_of
from tests.support.proxy import Behaviour, Exchange

#: "unanswered": when the server has acted, and the answer is lost as well.
Moment: TypeAlias = Literal["before", "after", "unanswered"]
_COLLECTION: Final = "/apis/kyverno.io/v1/clusterpolicies"
_MESSAGE: Final = "Theirs."
#: Of the very field that the run changes, too.
_SPEC: Final[JsonObject] = {"spec": {"rules": cluster_policy(message=_MESSAGE)["spec"]["rules"]}}
_LABEL: Final[JsonObject] = {"metadata": {"labels": {"edited": "by-hand"}}}


class Edit:
    """One edit, of the spec or of a label, of a ClusterPolicy; where there is none, it is created so."""

    def __init__(self, name: str, *, moment: Moment, label: bool = False) -> None:
        """It is not made yet."""
        self._name, self._moment, self._label = name, moment, label
        self.identity = identity_of(cluster_policy(name))
        self.made = False

    def __str__(self) -> str:
        return f"{'label' if self._label else 'edit'} of {self._name} {self._moment}"

    def behaviour(self, bed: Bed) -> Behaviour:
        """Make it when a request comes."""

        def behave(exchange: Exchange) -> None:
            if self._moment == "before":
                self._make(bed.plane.api)
                exchange.send(exchange.forward())
                return
            answer = exchange.forward()
            self._make(bed.plane.api)
            if self._moment == "after":
                exchange.send(answer)
            else:
                exchange.reset()

        return behave

    def _make(self, api: Api) -> None:
        if self.made:
            return
        edit = _LABEL if self._label else _SPEC
        answer = api.ask("PATCH", f"{_COLLECTION}/{self._name}", edit, content_type="application/merge-patch+json")
        if answer.status_code == 404:
            body = cluster_policy(self._name, **({"labels": edit["metadata"]["labels"]} if self._label else {}))
            body["spec"] |= edit.get("spec", {})
            answer = api.ask("POST", _COLLECTION, body)
        assert answer.ok, answer.text
        self.made = True

    def stands(self, bed: Bed) -> bool:
        """Whether it is there."""
        found = bed.direct.read(self.identity)
        if found is None:
            return False
        labels = found["metadata"].get("labels") or {}
        return "edited" in labels if self._label else found["spec"]["rules"][0]["validate"]["message"] == _MESSAGE
