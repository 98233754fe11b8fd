"""A store in tiers; for now one tier, the memory (floor 3)."""

from __future__ import annotations

from sifaka.storage.base import Storage
from sifaka.storage.wrapper import StorageWrapper

__all__ = ["CachedStorage"]


class CachedStorage(StorageWrapper):
    """The tiers of a store as one; what it keeps in ``memory_storage`` is as durable as that is."""

    def __init__(self, memory_storage: Storage) -> None:
        super().__init__(memory_storage)
        self.memory_storage = memory_storage
