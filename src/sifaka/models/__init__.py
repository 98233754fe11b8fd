"""Language models behind one protocol: embedded, or at a provider (floor 2).

:func:`create_model` opens any of them from a spec such as ``"local:smollm2"`` or
``"anthropic:claude-sonnet-5"``; :class:`FallbackModel` asks the next when one fails. A plain callable is a
model too and needs nothing from here.
"""

from __future__ import annotations

from sifaka.models.base import RetiredModelWarning, create_model
from sifaka.models.fallback import FallbackModel

__all__ = ["FallbackModel", "RetiredModelWarning", "create_model"]
