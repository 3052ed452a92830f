"""Pure: how what outlives a run is kept as bytes: a value, compressed, in chunks, and a head that is signed."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Final, TypeVar

from applier.journal.key import Key
from renderer.errors import InputError
from renderer.manifest.jsontypes import Json, JsonObject

#: Well under the 1,048,576 bytes that a ConfigMap's values may have together.
CHUNK_BYTES: Final = 768 * 1024
#: A chunk's name: SHA-256 in hexadecimal.
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
#: What reading a head raises that is none.
UNREADABLE: Final = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
#: The greatest number that a head may have: so many fit into the fields of the API.
MOST: Final = 2**31 - 1

Head = TypeVar("Head")


class Trust(Enum):
    """Whether a head is known to be written by somebody who has our key."""

    VERIFIED = "its signature is right"
    NO_KEY = "there is no key to verify it with"
    UNSIGNED = "it is not signed"
    WRONG = "its signature is wrong: it was changed, or signed with another token or key"


def split(value: Json, chunk_bytes: int) -> tuple[bytes, ...]:
    """The value as chunks, each of so many bytes at most; the same value gives the same bytes."""
    packed = zlib.compress(canonical(value))
    return tuple(packed[start : start + chunk_bytes] for start in range(0, len(packed), chunk_bytes))


def join(
    digests: Sequence[str],
    chunks: Sequence[bytes],
    *,
    most_bytes: int,
    called: str,
    error: Callable[[str], InputError],
) -> Json:
    """The value of the chunks that a head names by their digests; raises that error when they are not that.

    `most_bytes` is what it may have unpacked: a head that nobody vouches for must not fill the memory.
    """
    for number, (digest, chunk) in enumerate(zip(digests, chunks, strict=True), 1):
        if chunk_digest(chunk) != digest:
            raise error(f"chunk {number} of {len(digests)} is not what the head says.")
    try:
        inflater = zlib.decompressobj()
        text = inflater.decompress(b"".join(chunks), most_bytes)
        if not inflater.eof:
            raise error(f"its {called} have more than {most_bytes} bytes, or are cut off.")
        return json.loads(text)
    except (zlib.error, ValueError, RecursionError) as failure:
        raise error(f"its {called} can't be read.") from failure


def chunk_digest(chunk: bytes) -> str:
    """What names a chunk."""
    return hashlib.sha256(chunk).hexdigest()


def seal(fields: Mapping[str, Json], key: Key | None) -> bytes:
    """The head as JSON that people can read, signed when there is a key."""
    signed = dict(fields)
    if key is not None:
        signed["hmac"] = key.sign(canonical(signed))
    return json.dumps(signed, indent=2, sort_keys=True).encode() + b"\n"


def unseal(data: bytes, key: Key | None) -> tuple[JsonObject, Trust]:
    """The head's fields but for the signature, and whether they can be trusted. Raises one of UNREADABLE."""
    fields = json.loads(data)
    signature = fields.pop("hmac", None)
    if key is None:
        return fields, Trust.NO_KEY
    if not isinstance(signature, str):
        return fields, Trust.UNSIGNED
    return fields, Trust.VERIFIED if key.verifies(canonical(fields), signature) else Trust.WRONG


def opened(
    data: bytes,
    key: Key | None,
    *,
    version: int,
    read: Callable[[JsonObject], Head],
    error: Callable[..., InputError],
) -> tuple[Head, Trust]:
    """What `read` makes of the head's fields, and whether it can be trusted.

    Raises that error when it is no head, or has a format version above `version`, the newest that is known.
    """
    try:
        fields, trust = unseal(data, key)
        found = fields["formatVersion"]
        if isinstance(found, int) and found > version:
            raise error(
                f"it has format version {found}; this program knows {version}.",
                hint="Use the version that wrote it, or a newer one.",
            )
        return read(fields), trust
    except UNREADABLE as failure:
        raise error("its head can't be read.") from failure


def same_cluster(recorded: Mapping[str, str], known: Mapping[str, str]) -> bool:
    """Whether every UID that both sides know is the same, and there is one."""
    shared = recorded.keys() & known.keys()
    return bool(shared) and all(recorded[name] == known[name] for name in shared)


def text(value: object) -> str:
    """The value, which has to be text. Raises TypeError."""
    if not isinstance(value, str):
        raise TypeError
    return value


def matching(pattern: re.Pattern[str], value: object) -> str:
    """The value, which has to be text of that form. Raises ValueError or TypeError."""
    if not pattern.fullmatch(text(value)):
        raise ValueError
    return str(value)


def count(value: object, most: int = MOST) -> int:
    """The value, which has to be a number that a run of ours can have written. Raises ValueError."""
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError
    return value


def canonical(value: Json) -> bytes:
    """The one way to write the value as JSON: what is signed, and what is compressed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
