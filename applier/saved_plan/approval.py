"""Pure: whether what a saved plan shows of a policy, as people read it, is what its digests approve."""

from __future__ import annotations

from typing import Final

import jsonpatch
from jsonpointer import JsonPointerException

from applier import diff
from applier.change import Action, Change
from applier.report.document import Entry
from renderer.manifest.jsontypes import JsonObject
from renderer.manifest.normalize import content, digest

_BY_PATCH: Final = (Action.UPDATE, Action.ADOPT)
_BY_CONTENT: Final = (Action.CREATE, Action.REPLACE)
#: What a patch that was edited at will may end in.
_BROKEN: Final = (
    jsonpatch.JsonPatchException,
    JsonPointerException,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
)


def is_approved(shown: JsonObject, planned: Entry, now: Change) -> bool:
    """Whether the patch or the content in the file leads from what is live to what the file's digest says.

    `now` is the same policy in a plan made since, which finds before it what `planned` found. Other people's labels
    and annotations may have come and gone, and do not count.
    """
    kind = now.identity.kind
    try:
        if planned.action in _BY_CONTENT:
            result = shown["content"]
        elif planned.action in _BY_PATCH and now.before is not None:
            result = _patched(content(now.before, kind), shown["patch"])
        else:
            return True
        keys = diff.keys_in_question(now.before, now.after)
        return digest(diff.managed(result, keys, kind)) == planned.after
    except _BROKEN:
        return False


def _patched(before: JsonObject, operations: list[JsonObject]) -> JsonObject:
    """The patch's outcome, without its preconditions: what they test of labels may be other people's business."""
    sections = {section: before["metadata"].get(section, {}) for section in ("labels", "annotations")}
    found: JsonObject = jsonpatch.apply_patch(
        {**before, "metadata": {**before["metadata"], **sections}},
        [operation for operation in operations if operation["op"] != "test"],
    )
    return found
