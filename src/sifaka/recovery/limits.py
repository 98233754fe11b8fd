"""What recovery is allowed: attempts, actions, restarts, deaths, waits and budgets (floor 4).

All are counted from the log, so a crash cannot reset them. Sources: three attempts a step (Google SRE
book, "Addressing Cascading Failures"); full jitter (AWS Architecture Blog, "Exponential Backoff and
Jitter"); a stated wait above five minutes is no pause but an exhausted quota (gemini-cli). The limits that
all processes of a store share, breakers, stated waits and retry budgets, are in ``gate``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from sifaka.faults import Fault
from sifaka.faults.fault import signature
from sifaka.faults.waits import QUOTA_WAIT_S
from sifaka.log.records import Faulted
from sifaka.log.state import State
from sifaka.recovery.actions import RecoveryAction, RecoveryStrategy

__all__ = [
    "Budget",
    "Limits",
    "as_quota",
    "backoff_s",
    "overdue",
    "refusal",
    "seconds_left",
    "stated_waits",
    "with_wait",
]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often a run may try before it stops; times in seconds.

    ``deadline_s`` counts from when the run was opened first, by the wall clock, through all deaths and
    pauses; None: it may take for ever.
    """

    attempts_per_step: int = 3
    actions: int = 8
    full_restarts: int = 2
    deaths: int = 10
    stated_waits: int = 100
    waits_s: float = 3600.0
    deadline_s: float | None = None


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The most a run may use over all its lives; None: no limit. ``seconds`` are those it is alive."""

    usd: float | None = None
    tokens: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, value: object) -> Budget:
        """A budget from a number (US dollars), a mapping, a Budget or None.

        Raises ``ValueError`` with what may be written.
        """
        if isinstance(value, Budget):
            return value
        if value is None:
            return cls()
        try:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return cls(usd=float(value))._checked()
            return msgspec.convert(value, cls)._checked()
        except (msgspec.ValidationError, ValueError) as error:
            raise ValueError(
                f"budget={value!r}: {error}. Write a number of US dollars, or a dict with any of "
                '"usd", "tokens", "seconds"'
            ) from error

    def _checked(self) -> Budget:
        for limit in (self.usd, self.tokens, self.seconds):
            if limit is not None and not limit >= 0:
                raise ValueError("a budget is not negative")
        return self

    def exhausted(self, state: State, now: float, price_max_usd: float | None = None) -> str | None:
        """Why the next call, of at most that price, must not be made, or None.

        Calls in flight and in doubt count with their highest price. Of unknown price (None) are calls as
        long as there is money left; a free call may always be made.
        """
        if self.usd is not None and price_max_usd != 0:
            reserved = sum(one.price_max_usd or 0.0 for one in state.doubts.values())
            reserved += sum(one.price_max_usd or 0.0 for one in state.open_intents.values())
            spent, most = state.totals.cost_usd + reserved, price_max_usd or 0.0
            if spent + most > self.usd or (price_max_usd is None and spent >= self.usd):
                return (
                    f"the budget of ${self.usd:.4f} does not cover the next call: ${spent:.4f} are spent, "
                    f"in flight or in doubt, and it may cost ${most:.4f}"
                )
        if self.tokens is not None:
            used = state.totals.input_tokens + state.totals.output_tokens
            if used >= self.tokens:
                return f"the budget of {self.tokens:,} tokens is used up ({used:,})"
        if self.seconds is not None and state.active_s(now) >= self.seconds:
            return f"the time budget of {self.seconds:g} s is used up"
        return None


def seconds_left(limits: Limits, state: State, now: float) -> float | None:
    """How long the run still has until its deadline, in seconds, 0 when that is past; None: it has none."""
    if limits.deadline_s is None:
        return None
    passed = max(0.0, now - state.first_at) if state.next_seq else 0.0
    return max(0.0, limits.deadline_s - passed)


def overdue(limits: Limits, state: State, now: float) -> str | None:
    """Why no call may be made any more, or None."""
    if seconds_left(limits, state, now) != 0.0:
        return None
    return f"the deadline of {limits.deadline_s:g} s after the run was opened is past"


def as_quota(fault: Fault, left_s: float | None = None) -> Fault:
    """The fault as this run has to take it: a stated wait that is too long is an exhausted quota.

    Too long is more than five minutes, or more than the ``left_s`` seconds until the run's deadline. Then the
    same call does not help in time, whatever the provider calls it.
    """
    wait_s = fault.retry_after_s
    if not fault.transient or wait_s is None:
        return fault
    if wait_s <= QUOTA_WAIT_S and (left_s is None or wait_s < left_s):
        return fault
    return msgspec.structs.replace(
        fault,
        kind="quota_exhausted",
        transient=False,
        signature=signature("quota_exhausted", fault.error_class, fault.message),
    )


_SLOW_KINDS = ("rate_limit", "overloaded", "server_error")


def backoff_s(fault: Fault, attempt: int, random: Any) -> float:
    """Seconds to wait before attempt ``attempt + 1``: full jitter, or the stated wait plus jitter.

    ``random`` is a seeded generator: the same run at the same record waits equally long.
    """
    base, cap = (1.0, 60.0) if fault.kind in _SLOW_KINDS else (0.5, 8.0)
    jitter: float = random.uniform(0.0, min(cap, base * 2 ** (attempt - 1)))
    return jitter if fault.retry_after_s is None else fault.retry_after_s + jitter / 4


_WAITS = (RecoveryStrategy.RETRY_CURRENT_STEP, RecoveryStrategy.MODIFY_PARAMETERS)


def with_wait(action: RecoveryAction, faults: Sequence[Faulted], seed: str) -> RecoveryAction:
    """The action with the wait it needs before what failed, all of it transient, is tried again.

    A retry after waits that the provider itself stated uses up no allowance.
    """
    transient = [one for one in faults if one.fault.transient]
    if action.strategy not in _WAITS or not transient or action.delay_s:
        return action
    if {"model", "models"} & set(action.parameters):  # another model is asked: nobody has to wait for it
        return action
    from random import Random  # here: only a run that failed needs it

    random = Random(seed)  # noqa: S311 - jitter, no secret
    delay_s = max(backoff_s(one.fault, one.attempt, random) for one in transient)
    only_waits = len(stated_waits(action, faults)) == len(faults)
    return msgspec.structs.replace(action, delay_s=round(delay_s, 3), counts=not only_waits)


def stated_waits(action: RecoveryAction, faults: Sequence[Faulted]) -> tuple[str, ...]:
    """The parts for which ``action`` keeps a wait that their provider stated: no attempts of theirs."""
    if action.strategy is not RecoveryStrategy.RETRY_CURRENT_STEP:
        return ()
    return tuple(one.part for one in faults if one.fault.transient and one.fault.retry_after_s is not None)


def refusal(
    action: RecoveryAction,
    state: State,
    parts: Sequence[str],
    limits: Limits,
    budget: Budget,
    now: float,
) -> str | None:
    """Why ``action``, for ``parts`` that failed, is not allowed now, as one sentence, or None."""
    strategy = action.strategy
    if state.waited_s + action.delay_s > limits.waits_s:
        return f"the run has waited {state.waited_s:.0f} s already"
    if budget.seconds is not None and state.active_s(now) + action.delay_s > budget.seconds:
        return f"waiting {action.delay_s:.0f} s would pass the time budget"
    left_s = seconds_left(limits, state, now)
    if left_s is not None and action.delay_s >= left_s:
        return overdue(limits, state, now) or f"waiting {action.delay_s:.0f} s would pass the deadline"
    if not action.counts:
        waits = state.waits
        return f"the run has waited {waits} times" if waits >= limits.stated_waits else None
    if strategy is RecoveryStrategy.SKIP_TO_NEXT_STEP:  # so it ends: an iteration has only so many parts
        return None
    if state.actions >= limits.actions:
        return f"{limits.actions} recovery actions have been tried"
    if strategy is RecoveryStrategy.FULL_RESTART and state.restarts >= limits.full_restarts:
        return f"the run was restarted {limits.full_restarts} times"
    if "models" in action.parameters:  # another model has attempts of its own
        return None
    again = (RecoveryStrategy.RETRY_CURRENT_STEP, RecoveryStrategy.MODIFY_PARAMETERS)
    attempts = max((state.attempts.get(part, 0) for part in parts), default=0)
    if strategy in again and attempts >= limits.attempts_per_step:
        return f"this step was attempted {attempts} times"
    return None
