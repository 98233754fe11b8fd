"""What could be done about a fault, and what could not, with the reason (floor 4).

Candidates come from the prior table and from the user's rules. One that cannot be applied where the run
stands, or that has nothing to set, is no candidate: the reason why is kept for who asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sifaka.faults import row
from sifaka.recovery.actions import SKIPPABLE, RecoveryStrategy, action_key
from sifaka.recovery.priors import SKIP_LOSS, Prior, rows_for
from sifaka.recovery.rules import Rule
from sifaka.recovery.situation import Situation
from sifaka.recovery.suggestions import Setting

__all__ = ["Candidate", "NotOffered", "candidates"]

_S = RecoveryStrategy
_AGAIN = (_S.RETRY_CURRENT_STEP, _S.MODIFY_PARAMETERS)


class Candidate(NamedTuple):
    """Something that could be done: ``prior`` is its chance where no history speaks.

    ``loss`` is the share of the result's value that it gives up, ``key`` what its outcomes are counted under.
    """

    strategy: RecoveryStrategy
    prior: float
    prior_in_bad_hour: float
    why: str
    parameters: dict[str, Any]
    loss: float
    loses: str
    key: str

    @property
    def switches(self) -> bool:
        """Whether it asks another model."""
        return bool({"model", "models"} & self.parameters.keys())

    @property
    def is_harmless(self) -> bool:
        """Whether nothing is lost by trying it: no work, no quality."""
        return self.strategy in _AGAIN and not self.loss and not self.loses


class NotOffered(NamedTuple):
    """A strategy that is not offered, and why not, in words."""

    strategy: RecoveryStrategy
    why: str


def candidates(at: Situation, rules: Sequence[Rule] = ()) -> tuple[list[Candidate], list[NotOffered]]:
    """What may help, and what is not offered."""
    found: dict[str, Candidate] = {}
    refused: list[NotOffered] = []
    for one in _of_table(at):
        if isinstance(one, NotOffered):
            refused.append(one)
        else:
            found.setdefault(one.key, one)
    for rule in rules:
        if rule.fits(at):
            _apply_rule(rule, at, found, refused)
    offered = {one.strategy for one in found.values()}
    said = {one.strategy for one in refused}
    refused += [NotOffered(one, _why_never(one, at)) for one in _S if one not in offered | said]
    return list(found.values()), refused


def _of_table(at: Situation) -> Iterator[Candidate | NotOffered]:
    for line in rows_for(at.fault.kind):
        if line.transient is not None and line.transient is not at.fault.transient:
            continue
        impossible = _impossible(line.strategy, at)
        if impossible:
            yield NotOffered(line.strategy, impossible)
            continue
        setting = line.settings(at) if line.settings else Setting({}, line.why)
        yield (
            NotOffered(line.strategy, setting) if isinstance(setting, str) else _candidate(line, setting, at)
        )


def _candidate(line: Prior, setting: Setting, at: Situation) -> Candidate:
    loss, loses = setting.loss, setting.loses
    if line.strategy is _S.SKIP_TO_NEXT_STEP:
        loss, loses = SKIP_LOSS[at.position.operation], f"what {at.what} would have said"
    return Candidate(
        line.strategy,
        line.confidence,
        line.confidence if line.in_bad_hour is None else line.in_bad_hour,
        setting.why or line.why,
        setting.parameters,
        loss,
        loses or _work_thrown_away(line.strategy, at),
        _key(line.strategy, setting.parameters, at),
    )


def _key(strategy: RecoveryStrategy, parameters: dict[str, Any], at: Situation) -> str:
    stated = at.waits_as_stated and strategy is _S.RETRY_CURRENT_STEP
    return action_key(strategy.value, parameters, stated_wait=stated)


def _apply_rule(rule: Rule, at: Situation, found: dict[str, Candidate], refused: list[NotOffered]) -> None:
    settings = rule.settings(at)
    impossible = _impossible(rule.strategy, at)
    if settings is None or impossible:
        refused.append(NotOffered(rule.strategy, impossible or f"{rule.why}: there is nothing to set here"))
        return
    key = _key(rule.strategy, settings, at)
    if not rule.confidence:
        found.pop(key, None)
        refused.append(NotOffered(rule.strategy, rule.why))
        return
    loses = rule.loses or _work_thrown_away(rule.strategy, at)
    found[key] = Candidate(
        rule.strategy, rule.confidence, rule.confidence, rule.why, settings, rule.loss, loses, key
    )


def _impossible(strategy: RecoveryStrategy, at: Situation) -> str:
    """Why the strategy leads nowhere from here, or ""."""
    operation = at.position.operation
    if strategy is _S.SKIP_TO_NEXT_STEP and operation not in SKIPPABLE:
        return "a text is never skipped"
    if strategy is _S.RESTART_FROM_GENERATION and operation == "retrieval":
        return "no text has been written yet"
    if _is_the_retry(strategy, at):
        return "nothing was done before what failed: that would be the retry itself, without its wait"
    return ""


def _is_the_retry(strategy: RecoveryStrategy, at: Situation) -> bool:
    """Whether a restart would only do again what failed."""
    operation, first = at.position.operation, not at.position.iteration
    match strategy:
        case RecoveryStrategy.RESTART_FROM_GENERATION:
            return operation == "generation" and first
        case RecoveryStrategy.RESTART_ITERATION if not first:
            return operation == "generation"
        case RecoveryStrategy.RESTART_ITERATION | RecoveryStrategy.FULL_RESTART:
            return first and (operation == "retrieval" or (operation == "generation" and not at.documents))
        case _:
            return False


def _why_never(strategy: RecoveryStrategy, at: Situation) -> str:
    """Why a strategy is not in the table for this kind of fault."""
    impossible = _impossible(strategy, at)
    if impossible:
        return impossible
    because = row(at.fault.kind, at.fault.transient).why
    if strategy is _S.RETRY_CURRENT_STEP and not at.fault.transient:
        return f"{because}: the same call would fail again"
    if strategy is _S.MODIFY_PARAMETERS:
        return f"{because}: no setting of the run changes that"
    return f"{because}: that would be paid again and meet the same fault"


def _work_thrown_away(strategy: RecoveryStrategy, at: Situation) -> str:
    if strategy is _S.FULL_RESTART:
        held = [_number(at.documents, "document"), *_on_text(at)]
        return ", ".join(filter(None, held)) or "what was done so far"
    if strategy in (_S.RESTART_ITERATION, _S.RESTART_FROM_GENERATION):
        return ", ".join(filter(None, _on_text(at))) or "what this iteration has done"
    return ""


def _on_text(at: Situation) -> list[str]:
    text = "this iteration's text" if at.has_text else ""
    return [
        text,
        _number(at.verdicts, "verdict"),
        _number(at.feedback, "critic's answer", "critics' answers"),
    ]


def _number(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}" if count else ""
