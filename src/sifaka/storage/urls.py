"""Opening a store by its address, once a process (floor 3)."""

from __future__ import annotations

import os

from sifaka.errors import StoreUnreachableError, UsageError
from sifaka.faults import redact
from sifaka.locks import ProcessLock
from sifaka.storage.base import Storage
from sifaka.storage.checkpoints import CachedCheckpointStorage

__all__ = ["open_storage"]

_opened: dict[str, CachedCheckpointStorage] = {}
_lock = ProcessLock()


def open_storage(
    storage: CachedCheckpointStorage | Storage | str | None, *, create: bool = True
) -> CachedCheckpointStorage:
    """The typed face of a storage object, of an address, or of a new memory (None).

    Addresses: ``memory://`` (one a process), ``sqlite:///relative.db``, ``sqlite:////absolute.db``,
    ``redis://…`` (``rediss://``, ``unix://``), ``postgresql://…``. An address is opened once a process and
    shared; with ``create=False`` a missing store is an error. Raises StoreUnreachableError.
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
    scheme, _, rest = url.partition("://")
    opener = _OPENERS.get(scheme)
    if opener is None or (scheme == "sqlite" and not rest.removeprefix("/")):
        meant = f"; did you mean sqlite:///{url}?" if url and ":" not in url else ""
        raise StoreUnreachableError(
            redact(url),
            "an address is memory://, sqlite:///relative.db, sqlite:////absolute.db, redis://host:6379/0 or "
            f"postgresql://host/database{meant}",
        )
    return opener(url, create=create)


def _memory(url: str, *, create: bool) -> Storage:
    from sifaka.storage.memory import InMemoryStorage

    if url != "memory://":
        raise StoreUnreachableError(url, "the store in memory has no more to its address: memory://")
    del create
    return InMemoryStorage()


def _sqlite(url: str, *, create: bool) -> Storage:
    from sifaka.storage.sqlite import SQLiteStorage

    path = url.removeprefix("sqlite://")
    if not path.startswith("/"):
        raise StoreUnreachableError(url, f"write a path with three slashes: sqlite:///{path}")
    return SQLiteStorage(path[1:], create=create)


def _redis(url: str, *, create: bool) -> Storage:
    from sifaka.storage.redis import RedisStorage

    return RedisStorage(url, create=create)


def _postgres(url: str, *, create: bool) -> Storage:
    from sifaka.storage.postgres import PostgresStorage

    return PostgresStorage(url, create=create)


_OPENERS = {
    "memory": _memory,
    "sqlite": _sqlite,
    **dict.fromkeys(("redis", "rediss", "unix", "valkey"), _redis),
    **dict.fromkeys(("postgresql", "postgres"), _postgres),
}
