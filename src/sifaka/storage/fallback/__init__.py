"""A store that may go away, and a local journal in its place until it is back (floor 3)."""

from sifaka.storage.fallback.store import FallbackStorage, SplitHistoryError

__all__ = ["FallbackStorage", "SplitHistoryError"]
