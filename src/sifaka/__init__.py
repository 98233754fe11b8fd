"""Chains of language model calls that survive their own death.

The everyday names are importable from here; each is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sifaka.lazy import names_of

if TYPE_CHECKING:
    from sifaka.chain import Chain
    from sifaka.critics import (
        ConstitutionalCritic,
        MetaRewardingCritic,
        NCriticsCritic,
        PromptCritic,
        ReflexionCritic,
        SelfConsistencyCritic,
        SelfRAGCritic,
        SelfRefineCritic,
    )
    from sifaka.errors import ChainError, SifakaError
    from sifaka.models import FallbackModel
    from sifaka.models.base import create_model
    from sifaka.parts import Heard, Pending, Reply, Request
    from sifaka.recovery import RecoveryAction, RecoveryManager, RecoveryStrategy
    from sifaka.retrievers import BM25Retriever, InMemoryRetriever, VectorRetriever
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
    from sifaka.validators import (
        ClassifierValidator,
        ContentValidator,
        FormatValidator,
        JSONValidator,
        JudgeValidator,
        LanguageValidator,
        LengthValidator,
        MarkdownValidator,
        ReadabilityValidator,
        RegexValidator,
    )

_HOME = {
    "BM25Retriever": "sifaka.retrievers",
    "CachedCheckpointStorage": "sifaka.storage.checkpoints",
    "CachedStorage": "sifaka.storage.cached",
    "Chain": "sifaka.chain",
    "ChainError": "sifaka.errors",
    "ClassifierValidator": "sifaka.validators",
    "ConstitutionalCritic": "sifaka.critics",
    "ContentValidator": "sifaka.validators",
    "CriticFeedback": "sifaka.thought",
    "Document": "sifaka.thought",
    "EmbeddedSimilarity": "sifaka.storage.similarity.embedded",
    "FallbackModel": "sifaka.models",
    "FallbackStorage": "sifaka.storage.fallback",
    "FormatValidator": "sifaka.validators",
    "Heard": "sifaka.parts",
    "InMemoryRetriever": "sifaka.retrievers",
    "InMemoryStorage": "sifaka.storage.memory",
    "JSONValidator": "sifaka.validators",
    "JudgeValidator": "sifaka.validators",
    "LanguageValidator": "sifaka.validators",
    "LengthValidator": "sifaka.validators",
    "MarkdownValidator": "sifaka.validators",
    "MetaRewardingCritic": "sifaka.critics",
    "MilvusStorage": "sifaka.storage.milvus",
    "NCriticsCritic": "sifaka.critics",
    "Pending": "sifaka.parts",
    "PostgresStorage": "sifaka.storage.postgres",
    "PromptCritic": "sifaka.critics",
    "ReadabilityValidator": "sifaka.validators",
    "RecoveryAction": "sifaka.recovery",
    "RecoveryManager": "sifaka.recovery",
    "RecoveryStrategy": "sifaka.recovery",
    "RedisStorage": "sifaka.storage.redis",
    "ReflexionCritic": "sifaka.critics",
    "RegexValidator": "sifaka.validators",
    "Reply": "sifaka.parts",
    "Request": "sifaka.parts",
    "SQLiteStorage": "sifaka.storage.sqlite",
    "SelfConsistencyCritic": "sifaka.critics",
    "SelfRAGCritic": "sifaka.critics",
    "SelfRefineCritic": "sifaka.critics",
    "SifakaError": "sifaka.errors",
    "Thought": "sifaka.thought",
    "ValidationResult": "sifaka.thought",
    "VectorRetriever": "sifaka.retrievers",
    "create_model": "sifaka.models.base",
}

__version__ = "0.1.0"

__all__ = [
    "BM25Retriever",
    "CachedCheckpointStorage",
    "CachedStorage",
    "Chain",
    "ChainError",
    "ClassifierValidator",
    "ConstitutionalCritic",
    "ContentValidator",
    "CriticFeedback",
    "Document",
    "EmbeddedSimilarity",
    "FallbackModel",
    "FallbackStorage",
    "FormatValidator",
    "Heard",
    "InMemoryRetriever",
    "InMemoryStorage",
    "JSONValidator",
    "JudgeValidator",
    "LanguageValidator",
    "LengthValidator",
    "MarkdownValidator",
    "MetaRewardingCritic",
    "MilvusStorage",
    "NCriticsCritic",
    "Pending",
    "PostgresStorage",
    "PromptCritic",
    "ReadabilityValidator",
    "RecoveryAction",
    "RecoveryManager",
    "RecoveryStrategy",
    "RedisStorage",
    "ReflexionCritic",
    "RegexValidator",
    "Reply",
    "Request",
    "SQLiteStorage",
    "SelfConsistencyCritic",
    "SelfRAGCritic",
    "SelfRefineCritic",
    "SifakaError",
    "Thought",
    "ValidationResult",
    "VectorRetriever",
    "create_model",
]

__getattr__ = names_of(__name__, _HOME)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
