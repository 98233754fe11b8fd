"""What is on offer: the library's candidates as levers, and levers as actions for other policies (floor 8).

Whoever knows the world chooses among the same actions as who has to learn it.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

from sifaka.faults import classify
from sifaka.log.records import Operation, Position
from sifaka.recovery.actions import RecoveryAction, RecoveryStrategy
from sifaka.recovery.candidates import candidates
from sifaka.recovery.situation import Situation
from sifaka.testing.simulation.causes import lever_of
from sifaka.testing.simulation.failures import failure

__all__ = ["OPTIONS", "offer", "offered"]

OPTIONS = {"temperature": 0.8, "max_tokens": 1024}
"""What the chains of the simulated world set."""

_S = RecoveryStrategy
_PLAIN = {
    "retry": _S.RETRY_CURRENT_STEP,
    "skip": _S.SKIP_TO_NEXT_STEP,
    "restart": _S.RESTART_FROM_GENERATION,
    "again": _S.RESTART_ITERATION,
    "full": _S.FULL_RESTART,
}


def offer(
    lever: str, at: Situation, chance: float, in_force: str = "", delay_s: float = 0.0
) -> RecoveryAction:
    """The action that pulls this lever; one that is in force already is kept by a retry."""
    strategy = _S.RETRY_CURRENT_STEP if lever == in_force else _PLAIN.get(lever, _S.MODIFY_PARAMETERS)
    parameters = _parameters(lever, at) if strategy is _S.MODIFY_PARAMETERS else {}
    sure = min(1.0, max(0.0, chance))
    return RecoveryAction(strategy, lever, sure, parameters=parameters, delay_s=delay_s)


def _parameters(lever: str, at: Situation) -> dict[str, Any]:
    options = at.options
    match lever:
        case "timeout":
            return {"timeout_s": 2 * float(options.get("timeout_s") or 60.0)}
        case "smaller":
            return {"max_tokens": int(options.get("max_tokens") or 1024) // 2}
        case "context":
            return {
                "max_context_chars": int(options.get("max_context_chars") or at.prompt_chars or 12_000) // 2
            }
        case "tokens":
            return {"max_tokens": 2 * int(options.get("max_tokens") or 1024)}
        case "calmer":
            return {"temperature": float(options.get("temperature") or 0.8) / 2}
        case "batch":
            return {"batch_size": 1}
        case _:
            raise ValueError(f"{lever!r} is no lever that is set")


@cache
def offered(step: str, kind: str) -> tuple[str, ...]:
    """The levers of the actions that the library offers for such a fault at this step, skipping too."""
    options = OPTIONS | ({"timeout_s": 60.0} if kind == "timeout" else {})
    at = Situation(
        fault=classify(failure(kind, 1.3)),
        position=Position(cast("Operation", step), 0),
        part="",
        options=options,
        prompt_chars=12_000 if kind == "context_length" else 0,
        has_text=step in ("validation", "criticism"),
    )
    found, _ = candidates(at)
    return tuple(dict.fromkeys(lever_of(one.strategy, one.parameters, step, kind) for one in found))
