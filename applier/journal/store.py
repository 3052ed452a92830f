"""Where journals are kept: the protocol of a store, and the store on disk."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from applier.journal.format import TRANSACTION
from applier.ports import Access
from renderer.errors import ConfigurationError, InputError, Locked


class Store(Protocol):
    """Keeps heads and chunks as bytes, under the names of their transactions. What is written is durable.

    Every call raises a Failure when the store can't be used.
    """

    @property
    def place(self) -> str:
        """Where it is, for a message."""
        ...

    @property
    def uses(self) -> tuple[Access, ...]:
        """The rights on the cluster that it needs once something is kept, beyond those to keep it."""
        ...

    def fenced(self, may_write: Callable[[], bool]) -> Store:
        """The same store, which starts no write, nor repeats one, while that says no; it raises Locked instead."""
        ...

    def heads(self) -> dict[str, bytes]:
        """Every head, by its transaction."""
        ...

    def chunk(self, transaction: str, digest: str) -> bytes | None:
        """One chunk, or None when it is not there."""
        ...

    def put_chunk(self, transaction: str, digest: str, data: bytes) -> None:
        """Keep a chunk; it never changes."""
        ...

    def put_head(self, transaction: str, data: bytes) -> None:
        """Make the journal: its first head, when every chunk is there."""
        ...

    def replace_head(self, transaction: str, data: bytes) -> None:
        """Write another head in its place, at once."""
        ...

    def remove_head(self, transaction: str) -> None:
        """Remove the head, if it is there; from then on there is no journal."""
        ...

    def remove_chunks(self, transaction: str) -> None:
        """Remove the chunks that are there."""
        ...

    def headless(self, lease: str) -> set[str]:
        """The transactions of which only chunks are there, as far as runs under that Lease wrote them."""
        ...


def unfenced() -> bool:
    """For stores that no lock guards."""
    return True


def require_lock(may_write: Callable[[], bool]) -> None:
    """Raise Locked while that says no: another run may be at work already, and read what we write."""
    if not may_write():
        raise Locked(
            "The lock was lost, or could not be renewed in time; nothing more is kept in the journal.",
            hint="The next run, or `insights-applier recover`, sees to it.",
        )


def lease_mark(lease: str) -> str:
    """What the names of transactions under a Lease begin with: a part of its UID."""
    return re.sub(r"[^a-z0-9]", "", lease.lower())[:8] or "none"


def read_chunks(
    store: Store, transaction: str, digests: Sequence[str], error: Callable[[str], InputError]
) -> list[bytes]:
    """The chunks that a head names; raises that error when one is not there."""
    chunks = []
    for number, digest in enumerate(digests, 1):
        chunk = store.chunk(transaction, digest)
        if chunk is None:
            raise error(f"chunk {number} of {len(digests)} is missing.")
        chunks.append(chunk)
    return chunks


class DirectoryStore:
    """Files in one directory, for one cluster; each is on the disk before its name is."""

    _HEAD: Final = ".head.json"
    _CHUNK: Final = ".chunk"

    def __init__(self, directory: Path, *, may_write: Callable[[], bool] = unfenced) -> None:
        """Take the directory; it is made when something is kept."""
        self._directory = directory
        self._may_write = may_write

    @property
    def uses(self) -> tuple[Access, ...]:
        """None."""
        return ()

    def fenced(self, may_write: Callable[[], bool]) -> DirectoryStore:
        """See `Store`."""
        return DirectoryStore(self._directory, may_write=may_write)

    @property
    def place(self) -> str:
        """See `Store`."""
        return f"directory {self._directory}"

    def heads(self) -> dict[str, bytes]:
        """See `Store`."""
        with self._errors():
            found = {path.name.removesuffix(self._HEAD): path for path in self._files(f"*{self._HEAD}")}
            return {name: path.read_bytes() for name, path in found.items() if TRANSACTION.fullmatch(name)}

    def chunk(self, transaction: str, digest: str) -> bytes | None:
        """See `Store`."""
        with self._errors():
            path = self._chunk_file(transaction, digest)
            return path.read_bytes() if path.exists() else None

    def put_chunk(self, transaction: str, digest: str, data: bytes) -> None:
        """See `Store`."""
        self._write(self._chunk_file(transaction, digest), data)

    def put_head(self, transaction: str, data: bytes) -> None:
        """See `Store`."""
        self._write(self._directory / f"{transaction}{self._HEAD}", data)

    def replace_head(self, transaction: str, data: bytes) -> None:
        """See `Store`."""
        self.put_head(transaction, data)

    def remove_head(self, transaction: str) -> None:
        """See `Store`."""
        self._remove([self._directory / f"{transaction}{self._HEAD}"])

    def remove_chunks(self, transaction: str) -> None:
        """See `Store`."""
        self._remove(self._files(f"{transaction}.*{self._CHUNK}"))

    def headless(self, lease: str) -> set[str]:
        """See `Store`. Another Lease's chunks may be those of a run at work: directories can be shared by mistake."""
        with self._errors():
            chunks = {path.name.partition(".")[0] for path in self._files(f"{lease_mark(lease)}-*{self._CHUNK}")}
        return chunks - self.heads().keys()

    def _chunk_file(self, transaction: str, digest: str) -> Path:
        return self._directory / f"{transaction}.{digest}{self._CHUNK}"

    def _files(self, pattern: str) -> list[Path]:
        return sorted(self._directory.glob(pattern))

    def _write(self, path: Path, data: bytes) -> None:
        """Write it whole under another name, then give it its own; it survives a loss of power."""
        require_lock(self._may_write)
        with self._errors():
            self._directory.mkdir(parents=True, exist_ok=True)
            # No name of a file that is read: what is cut off is overwritten by the next run that writes.
            draft = self._directory / f".{path.name.partition('-')[0]}.writing"
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with open(handle, "wb") as file:  # noqa: PTH123 - a handle, not a path
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(path)
            self._sync()

    def _remove(self, paths: list[Path]) -> None:
        require_lock(self._may_write)
        with self._errors():
            for path in paths:
                path.unlink(missing_ok=True)
            if paths and self._directory.exists():
                self._sync()

    def _sync(self) -> None:
        handle = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigurationError(
                f"The journal's {self.place} can't be used: {error.strerror or error}.",
                hint="Make it writable, or name another with --journal.",
            ) from error
