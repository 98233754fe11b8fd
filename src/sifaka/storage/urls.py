"""Opening a store by its address, once a process (floor 3)."""

from __future__ import annotations

import os

from sifaka.errors import StoreUnreachableError, UsageError
from sifaka.storage.base import Storage
from sifaka.storage.checkpoints import CachedCheckpointStorage
from sifaka.storage.locks import ProcessLock

__all__ = ["open_storage"]

_opened: dict[str, CachedCheckpointStorage] = {}
_lock = ProcessLock()


def open_storage(
    storage: CachedCheckpointStorage | Storage | str | None, *, create: bool = True
) -> CachedCheckpointStorage:
    """The typed face of a storage object, of an address, or of a new memory (None).

    Addresses: ``memory://`` (one a process), ``sqlite:///relative.db``, ``sqlite:////absolute.db``.
    An address is opened once a process and shared; with ``create=False`` a missing store is an error.
    Raises StoreUnreachableError.
    """
    if isinstance(storage, CachedCheckpointStorage):
        return storage
    if isinstance(storage, Storage):
        return _shared(storage)
    if storage is None:
        from sifaka.storage.memory import InMemoryStorage

        return CachedCheckpointStorage(InMemoryStorage())
    if not isinstance(storage, str):
        raise UsageError(f"a store is a storage object, an address or None, not {storage!r}")
    with _lock:
        key = _key(storage)
        found = _opened.get(key)
        if found is None:
            found = CachedCheckpointStorage(_open(storage, create=create))
            if create:  # who only looks must not decide for those who come to write
                _opened[key] = found
        return found


def _shared(storage: Storage) -> CachedCheckpointStorage:
    """One typed face a storage object: its journal's commits are shared by all chains on it."""
    with _lock:
        if not isinstance(storage.face, CachedCheckpointStorage):
            storage.face = CachedCheckpointStorage(storage)
        return storage.face


def _key(url: str) -> str:
    scheme, _, rest = url.partition(":///")
    return f"sqlite:///{os.path.abspath(rest)}" if scheme == "sqlite" else url


def _open(url: str, *, create: bool) -> Storage:
    if url == "memory://":
        from sifaka.storage.memory import InMemoryStorage

        return InMemoryStorage()
    scheme, _, rest = url.partition(":///")
    if scheme == "sqlite" and rest:
        from sifaka.storage.sqlite import SQLiteStorage

        return SQLiteStorage(rest, create=create)
    meant = f"; did you mean sqlite:///{url}?" if url and ":" not in url else ""
    raise StoreUnreachableError(
        url,
        f"this version opens memory://, sqlite:///relative.db and sqlite:////absolute.db{meant}",
    )
