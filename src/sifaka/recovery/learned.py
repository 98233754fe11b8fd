"""Which value has worked: a suggested setting gives way to one that worked better here (floor 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sifaka.recovery.candidates import Candidate
from sifaka.recovery.counts import value_key
from sifaka.recovery.posterior import NO_COUNT, STRENGTH, Count
from sifaka.recovery.situation import Situation

__all__ = ["with_learned_value"]

LEARNABLE = ("batch_size", "max_tokens", "temperature", "timeout_s")
"""Numbers that mean the same in another run. How much of its documents a prompt can keep is not one."""
TRIED_MIN = 2.0
"""A value that was tried less often is no evidence."""
BETTER_BY = 0.05
"""A value is taken instead only where its chance is so much better: small differences are chance."""


def with_learned_value(
    candidate: Candidate, at: Situation, values: Mapping[str, Count], chance: float
) -> tuple[Candidate, Count]:
    """The candidate with the value that has worked best here, and what was counted for it.

    ``values`` counts by :func:`value_key`, ``chance`` is the estimate for the candidate whatever its value.
    """
    suggested = value_key(candidate.parameters)
    if not values or not candidate.parameters:
        return candidate, NO_COUNT
    chances = {
        key: _chance(count, chance) for key, count in values.items() if _is_choice(key, count, candidate, at)
    }
    own = _chance(values.get(suggested, NO_COUNT), chance)
    best = max(chances, key=lambda key: chances[key], default=suggested)
    if best == suggested or chances[best] < own + BETTER_BY:
        return candidate, values.get(suggested, NO_COUNT)
    parameters: dict[str, Any] = msgspec.json.decode(best)
    why = f"{_told(parameters)} has worked {values[best].worked:.0f} of {values[best].tried:.0f} times here"
    return candidate._replace(parameters=parameters, why=why), values[best]


def _told(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in parameters.items())


def _chance(count: Count, parent: float) -> float:
    return (count.worked + STRENGTH * parent) / (count.tried + STRENGTH)


def _is_choice(key: str, count: Count, candidate: Candidate, at: Situation) -> bool:
    """Whether a value that was set before is one that makes sense now."""
    if count.tried < TRIED_MIN:
        return False
    found: dict[str, Any] = msgspec.json.decode(key)
    if found.keys() != candidate.parameters.keys():
        return False
    return all(_makes_sense(name, value, candidate.parameters[name], at) for name, value in found.items())


def _makes_sense(name: str, value: Any, suggested: Any, at: Situation) -> bool:
    """A number on the same side of what is set now; another model that may be used."""
    if name == "models":
        current = at.asked_model
        return list(value) == [current] and value[current] in at.fallbacks
    if name not in LEARNABLE:
        return bool(value == suggested)
    now = at.options.get(name)
    return now is None or (value > now) == (suggested > now) != (value == now)
