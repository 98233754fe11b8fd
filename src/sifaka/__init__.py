"""Chains of language model calls that survive their own death.

The everyday names are importable from here; each is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sifaka.chain import Chain
    from sifaka.critics import SelfRefineCritic
    from sifaka.errors import ChainError, SifakaError
    from sifaka.models.base import create_model
    from sifaka.parts import Reply, Request
    from sifaka.recovery import RecoveryAction, RecoveryManager, RecoveryStrategy
    from sifaka.retrievers import InMemoryRetriever
    from sifaka.storage.cached import CachedStorage
    from sifaka.storage.checkpoints import CachedCheckpointStorage
    from sifaka.storage.fallback import FallbackStorage
    from sifaka.storage.memory import InMemoryStorage
    from sifaka.storage.milvus import MilvusStorage
    from sifaka.storage.postgres import PostgresStorage
    from sifaka.storage.redis import RedisStorage
    from sifaka.storage.similarity.embedded import EmbeddedSimilarity
    from sifaka.storage.sqlite import SQLiteStorage
    from sifaka.thought import CriticFeedback, Document, Thought, ValidationResult
    from sifaka.validators import LengthValidator, RegexValidator

_HOME = {
    "CachedCheckpointStorage": "sifaka.storage.checkpoints",
    "CachedStorage": "sifaka.storage.cached",
    "Chain": "sifaka.chain",
    "ChainError": "sifaka.errors",
    "CriticFeedback": "sifaka.thought",
    "Document": "sifaka.thought",
    "EmbeddedSimilarity": "sifaka.storage.similarity.embedded",
    "FallbackStorage": "sifaka.storage.fallback",
    "InMemoryRetriever": "sifaka.retrievers",
    "InMemoryStorage": "sifaka.storage.memory",
    "LengthValidator": "sifaka.validators",
    "MilvusStorage": "sifaka.storage.milvus",
    "PostgresStorage": "sifaka.storage.postgres",
    "RecoveryAction": "sifaka.recovery",
    "RecoveryManager": "sifaka.recovery",
    "RecoveryStrategy": "sifaka.recovery",
    "RedisStorage": "sifaka.storage.redis",
    "RegexValidator": "sifaka.validators",
    "Reply": "sifaka.parts",
    "Request": "sifaka.parts",
    "SQLiteStorage": "sifaka.storage.sqlite",
    "SelfRefineCritic": "sifaka.critics",
    "SifakaError": "sifaka.errors",
    "Thought": "sifaka.thought",
    "ValidationResult": "sifaka.thought",
    "create_model": "sifaka.models.base",
}

__version__ = "0.1.0"

__all__ = [
    "CachedCheckpointStorage",
    "CachedStorage",
    "Chain",
    "ChainError",
    "CriticFeedback",
    "Document",
    "EmbeddedSimilarity",
    "FallbackStorage",
    "InMemoryRetriever",
    "InMemoryStorage",
    "LengthValidator",
    "MilvusStorage",
    "PostgresStorage",
    "RecoveryAction",
    "RecoveryManager",
    "RecoveryStrategy",
    "RedisStorage",
    "RegexValidator",
    "Reply",
    "Request",
    "SQLiteStorage",
    "SelfRefineCritic",
    "SifakaError",
    "Thought",
    "ValidationResult",
    "create_model",
]


def __getattr__(name: str) -> Any:
    """An everyday name, from the module it lives in."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'sifaka' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
