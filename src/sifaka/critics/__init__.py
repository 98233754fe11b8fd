"""Ready-made critics: they ask a model, each call recorded on its own (floor 2)."""

from sifaka.critics.self_refine import SelfRefineCritic

__all__ = ["SelfRefineCritic"]
