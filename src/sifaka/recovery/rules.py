"""A user's own actions and own order, as data and pure functions, in the same table as ours (floor 4).

A rule is one more line: a strategy against a kind of fault, with a first guess of how likely it helps. Its
outcomes are counted like those of any line. A rule for the same strategy and settings as a line of ours takes
its place; with ``confidence=0`` it takes it out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from sifaka.errors import UsageError
from sifaka.faults import KINDS
from sifaka.log.records import OPERATIONS
from sifaka.recovery.actions import RecoveryAction, RecoveryStrategy
from sifaka.recovery.situation import Situation

__all__ = ["ANY", "Order", "Rule", "checked_rules"]

ANY = "any"
"""A rule of this kind is for all kinds of fault."""

Order = Callable[[Situation, Sequence[RecoveryAction]], Sequence[RecoveryAction]]
"""A ranking of one's own: the actions that may help, in our order, to the same or fewer in another."""


NOTHING: Mapping[str, Any] = MappingProxyType({})


class Rule(NamedTuple):
    """A line of one's own.

    Attributes:
        kind: which faults it is for, one of :data:`sifaka.faults.KINDS`, or "any".
        strategy: what is done.
        confidence: how likely it helps where no history speaks, 0 to 1; 0: never offer it.
        parameters: what is set; or a function of the situation that finds it, None for nothing to set.
        why: the reason, for people.
        step: only in this operation ("generation", "criticism", …); empty: in all.
        part: only for this part; empty: for all.
        when: only where this function of the situation is true.
        loss: the share of the result's value that it gives up, 0 to 1.
        loses: what that is, in words.
    """

    kind: str
    strategy: RecoveryStrategy
    confidence: float
    parameters: Mapping[str, Any] | Callable[[Situation], Mapping[str, Any] | None] = NOTHING
    why: str = "a rule of your own"
    step: str = ""
    part: str = ""
    when: Callable[[Situation], bool] | None = None
    loss: float = 0.0
    loses: str = ""

    def fits(self, at: Situation) -> bool:
        """Whether the rule is for this situation."""
        return (
            self.kind in (at.fault.kind, ANY)
            and self.step in ("", at.position.operation)
            and self.part in ("", at.part)
            and (self.when is None or bool(self.when(at)))
        )

    def settings(self, at: Situation) -> dict[str, Any] | None:
        """What the rule sets here; None where it has nothing to set."""
        found = self.parameters(at) if callable(self.parameters) else self.parameters
        return None if found is None else dict(found)


def checked_rules(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules. Raises UsageError, which says what may be written."""
    for rule in rules:
        _check(rule)
    return tuple(rules)


def _check(rule: object) -> None:
    if not isinstance(rule, Rule):
        raise UsageError(
            f"{rule!r} is no rule: Rule(kind=..., strategy=RecoveryStrategy...., confidence=...)"
        )
    if rule.kind not in (*KINDS, ANY):
        raise UsageError(f"kind={rule.kind!r}; it is one of {', '.join(KINDS)}, or {ANY!r}")
    if not isinstance(rule.strategy, RecoveryStrategy):
        raise UsageError(f"strategy={rule.strategy!r}; it is one of RecoveryStrategy's")
    if rule.step and rule.step not in OPERATIONS:
        raise UsageError(f"step={rule.step!r}; it is one of {', '.join(OPERATIONS)}")
    for name, value in (("confidence", rule.confidence), ("loss", rule.loss)):
        if not 0 <= value <= 1:
            raise UsageError(f"{name}={value!r}; it is a number from 0 to 1")
