"""Similar cases in Milvus, in a file or a server (floor 3)."""

from sifaka.storage.milvus.store import MilvusStorage

__all__ = ["MilvusStorage"]
