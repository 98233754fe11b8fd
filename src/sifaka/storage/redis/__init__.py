"""The store in a Redis server: its scripts, the way there, its settings, its hooks (floor 3)."""

from sifaka.storage.redis.store import RedisStorage

__all__ = ["RedisStorage"]
