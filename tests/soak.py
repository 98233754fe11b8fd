"""How large a theme of tests is: its count times ``SIFAKA_SOAK`` (floor 8).

The default of 1 keeps each theme to about 40 seconds on two cores; ``SIFAKA_SOAK=100`` goes on for an hour.
"""

from __future__ import annotations

import os

__all__ = ["scaled"]


def scaled(count: int) -> int:
    """``count`` times the environment variable ``SIFAKA_SOAK`` (a number, default 1); at least 1."""
    return max(1, round(count * float(os.environ.get("SIFAKA_SOAK") or "1")))
