"""The store in a Postgres server: its statements, its sessions, its hooks (floor 3)."""

from sifaka.storage.postgres.store import PostgresStorage

__all__ = ["PostgresStorage"]
