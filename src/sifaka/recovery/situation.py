"""What a ranking looks at: the fault, where, with which settings, and what there is to lose (floor 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sifaka.faults import Fault
from sifaka.log.records import Operation, Position
from sifaka.log.state import State

__all__ = ["USD_PER_HOUR", "Situation", "situation_of"]

USD_PER_HOUR = 3.6
"""What an hour of waiting counts, in US dollars, unless the option ``usd_per_hour`` says otherwise.

A tenth of a cent a second: a call of a cent is worth waiting ten seconds for.
"""

VALUE_USD = 1.0
"""What a result is worth at least, in US dollars, unless the option ``value_usd`` says otherwise."""

VALUE_OF_SPENT = 10.0
"""So many times what has been spent on it a result is worth: else nobody would have begun."""


class Situation(NamedTuple):
    """What a ranking looks at. All that is not known may be left out.

    Attributes:
        fault: what happened.
        position: where the run stands.
        part: the part that failed; "model" for the text itself.
        options: the settings in force.
        tried: the strategies that were tried at this step in vain, oldest first.
        prompt_chars: how long the documents in the prompt are, in characters.
        chain_id: the run.
        fallbacks: models that may be used instead, the next one first.
        model: the model that was asked; empty: the one in ``options``.
        together: how many parts run together in this operation.
        calls: how many calls the run has made.
        spent_usd: what the run has paid so far, in US dollars.
        active_s: how long it has worked so far, in seconds, waits left out.
        failed_s: how long the failed call took, in seconds.
        documents: how many documents it holds.
        verdicts: how many verdicts on its text.
        feedback: how many critics have answered.
        has_text: whether there is a text.
        seed: what exploration is drawn from; empty for none.
        applied: the names of the settings that recovery actions have changed in this run.
    """

    fault: Fault
    position: Position
    part: str
    options: Mapping[str, Any]
    tried: Sequence[str] = ()
    prompt_chars: int = 0
    chain_id: str = ""
    fallbacks: Sequence[str] = ()
    model: str = ""
    together: int = 1
    calls: int = 0
    spent_usd: float = 0.0
    active_s: float = 0.0
    failed_s: float = 0.0
    documents: int = 0
    verdicts: int = 0
    feedback: int = 0
    has_text: bool = False
    seed: str = ""
    applied: frozenset[str] = frozenset()

    @property
    def asked_model(self) -> str:
        """The model that was asked, by its name; empty where none is known."""
        return self.model or str(self.options.get("model") or "")

    @property
    def label(self) -> str:
        """The label of the chain, or ""."""
        return str(self.options.get("label") or "")

    @property
    def what(self) -> str:
        """What failed, in a word."""
        return self.part or self.position.operation

    @property
    def usd_per_s(self) -> float:
        """What a second counts, in US dollars."""
        return float(self.options.get("usd_per_hour", USD_PER_HOUR)) / 3600

    @property
    def value_usd(self) -> float:
        """What it is worth that the run succeeds, in US dollars."""
        stated = self.options.get("value_usd")
        return max(VALUE_USD, VALUE_OF_SPENT * self.spent_usd) if stated is None else float(stated)

    @property
    def waits_as_stated(self) -> bool:
        """Whether a retry would keep a wait that the provider has stated."""
        return self.fault.transient and self.fault.retry_after_s is not None


_KIND_OF: dict[Operation, str] = {
    "retrieval": "model_retriever",
    "validation": "validator",
    "critic_retrieval": "critic_retriever",
    "criticism": "critic",
}
"""The kind of the parts that an operation runs together."""


def situation_of(state: State, fault: Fault, part: str, now: float = 0.0) -> Situation:
    """The situation of a run at ``state``, after ``fault`` in ``part``, at ``now`` (unix seconds)."""
    kind = _KIND_OF.get(state.position.operation)
    return Situation(
        fault=fault,
        position=state.position,
        part=part,
        options=state.options,
        tried=state.tried,
        prompt_chars=sum(len(document.text) for document in state.all_documents),
        chain_id=state.chain_id,
        together=max(1, sum(one.kind == kind for one in state.parts)),
        calls=state.totals.calls,
        spent_usd=state.totals.cost_usd,
        active_s=max(0.0, state.active_s(max(now, state.last_at)) - state.waited_s),
        documents=len(state.all_documents),
        verdicts=len(state.verdicts),
        feedback=len(state.feedback),
        has_text=state.text is not None,
        applied=frozenset(state.parameters),
    )
