"""Pure: the part of a fleet that one of several machines takes, the same whenever and wherever it is asked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from renderer.errors import ConfigurationError

#: Kubernetes sets it in each pod of an Indexed Job: the pod's number, from 0.
INDEX_VARIABLE: Final = "JOB_COMPLETION_INDEX"
#: How many there are: the Job's completions.
COUNT_VARIABLE: Final = "INSIGHTS_SHARDS"

_COUNT_LIMIT: Final = 100_000  # the most completions that an Indexed Job may have
_ACCEPTED: Final = "I/N with I from 0 to N-1, such as 0/4"
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Part `index` (from 0) of `count`."""

    index: int = 0
    count: int = 1

    def holds(self, organization: str, cluster: str) -> bool:
        """Whether the cluster is of this part: by a hash of its names, so that no other cluster matters."""
        # No name holds a null character, so no two pairs of names give the same text.
        digest = hashlib.sha256(f"{organization}\0{cluster}".encode()).digest()
        return int.from_bytes(digest[:8]) % self.count == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_shard(text: str) -> Shard:
    """Read `I/N`. Raises ConfigurationError that shows the value and says what is accepted."""
    index, slash, count = text.partition("/")
    if not slash or not _is_number(index) or not _is_number(count) or not int(index) < int(count) <= _COUNT_LIMIT:
        raise ConfigurationError(f"{text!r} is no shard; it takes {_ACCEPTED}.")
    return Shard(index=int(index), count=int(count))


def shard_of_job(environ: Mapping[str, str]) -> Shard:
    """The shard that the variables of an Indexed Job name; the whole where neither is set.

    Raises ConfigurationError that names the variable, its value and what it takes.
    """
    index, count = environ.get(INDEX_VARIABLE, ""), environ.get(COUNT_VARIABLE, "")
    if not index and not count:
        return Shard()
    if not index or not count:
        there, missing = (COUNT_VARIABLE, INDEX_VARIABLE) if count else (INDEX_VARIABLE, COUNT_VARIABLE)
        raise ConfigurationError(
            f"{there} is {environ[there]!r}, but {missing} is not set: which clusters are this shard's is unknown.",
            hint=f"Set {COUNT_VARIABLE} to the completions of a Job whose completionMode is Indexed, where "
            f"Kubernetes sets {INDEX_VARIABLE}; or say --shard I/N (0/1 is every cluster).",
        )
    if not _is_number(count) or not 1 <= int(count) <= _COUNT_LIMIT:
        raise ConfigurationError(f"{COUNT_VARIABLE}: {count!r} is not accepted; it takes 1 to {_COUNT_LIMIT}.")
    if not _is_number(index) or not int(index) < int(count):
        raise ConfigurationError(
            f"{INDEX_VARIABLE}: {index!r} is not accepted; it takes 0 to {int(count) - 1}, "
            f"since {COUNT_VARIABLE} is {count}."
        )
    return Shard(index=int(index), count=int(count))


def _is_number(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text))
