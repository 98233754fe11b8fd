"""Ready-made critics: they ask a model, each call recorded on its own; loaded when first used (floor 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sifaka.lazy import names_of

if TYPE_CHECKING:
    from sifaka.critics.constitutional import ConstitutionalCritic
    from sifaka.critics.meta_rewarding import MetaRewardingCritic
    from sifaka.critics.n_critics import NCriticsCritic
    from sifaka.critics.prompted import PromptCritic
    from sifaka.critics.reflexion import ReflexionCritic
    from sifaka.critics.self_consistency import SelfConsistencyCritic
    from sifaka.critics.self_rag import SelfRAGCritic
    from sifaka.critics.self_refine import SelfRefineCritic

_HOME = {
    "ConstitutionalCritic": ".constitutional",
    "MetaRewardingCritic": ".meta_rewarding",
    "NCriticsCritic": ".n_critics",
    "PromptCritic": ".prompted",
    "ReflexionCritic": ".reflexion",
    "SelfConsistencyCritic": ".self_consistency",
    "SelfRAGCritic": ".self_rag",
    "SelfRefineCritic": ".self_refine",
}

__all__ = [
    "ConstitutionalCritic",
    "MetaRewardingCritic",
    "NCriticsCritic",
    "PromptCritic",
    "ReflexionCritic",
    "SelfConsistencyCritic",
    "SelfRAGCritic",
    "SelfRefineCritic",
]

__getattr__ = names_of(__name__, _HOME)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
