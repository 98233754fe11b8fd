"""Language models behind one protocol: embedded, or at a provider (floor 2).

:func:`create_model` opens any of them from a spec such as ``"local:smollm2"`` or
``"anthropic:claude-sonnet-5"``. A plain callable is a model too and needs nothing from here.
"""

from __future__ import annotations

from sifaka.models.base import RetiredModelWarning, create_model

__all__ = ["RetiredModelWarning", "create_model"]
