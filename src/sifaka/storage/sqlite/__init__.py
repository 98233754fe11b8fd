"""The store in one SQLite file: how it is opened, its statements, its hooks (floor 3)."""

from sifaka.storage.sqlite.store import SQLiteStorage

__all__ = ["SQLiteStorage"]
