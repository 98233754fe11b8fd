"""The values a chain works on: a thought, its documents, its verdicts and its feedback (floor 0).

All are frozen, and hold no cycles, so that the garbage collector need not look at them. A
:class:`Thought` is never edited: the next state of a run is a new thought, folded from the run's log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, overload

import msgspec

__all__ = [
    "CriticFeedback",
    "Document",
    "DoubtfulCall",
    "History",
    "Thought",
    "ValidationResult",
]


class Document(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A retrieved text; ``score`` is the retriever's own relevance, larger is better."""

    text: str
    id: str = ""
    score: float | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])


class ValidationResult(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One validator's verdict on a text.

    ``score`` is between 0 and 1 where the validator gives one; ``issues`` say what is wrong,
    ``suggestions`` what to change. A ``skipped`` validator has not passed.
    """

    passed: bool
    message: str = ""
    score: float | None = None
    issues: tuple[str, ...] = ()
    suggestions: tuple[str, ...] = ()
    validator: str = ""
    skipped: bool = False


class CriticFeedback(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One critic's feedback; ``confidence`` is the critic's own, between 0 and 1."""

    needs_improvement: bool
    message: str = ""
    issues: tuple[str, ...] = ()
    suggestions: tuple[str, ...] = ()
    confidence: float | None = None
    critic: str = ""
    skipped: bool = False
    metadata: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])


class DoubtfulCall(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A call that was sent and whose answer was never recorded: it may have been paid.

    ``price_max_usd`` is the most it can have cost, None where the price is unknown.
    """

    operation: str
    iteration: int
    part: str
    model: str = ""
    price_max_usd: float | None = None
    seq: int = -1


class History(Sequence["Thought"]):
    """The earlier thoughts of a run, oldest first, put together when first asked for.

    ``last`` is the newest of them; the older ones are its own history. Or ``load`` reads all of them
    from the log. Linked like this, a run's thoughts form no cycle and share what they have in common.
    """

    __slots__ = ("_last", "_load", "_thoughts")

    def __init__(
        self, last: Thought | None = None, load: Callable[[], tuple[Thought, ...]] | None = None
    ) -> None:
        self._last = last
        self._load = load
        self._thoughts: tuple[Thought, ...] | None = None

    def all(self) -> tuple[Thought, ...]:
        """The thoughts as a tuple."""
        if self._thoughts is None:
            newest_first: list[Thought] = []
            one: History | None = self
            while one is not None and one._last is not None:
                newest_first.append(one._last)
                earlier = one._last.history
                one = earlier if isinstance(earlier, History) else None
            oldest = one._load() if one is not None and one._load is not None else ()
            # Without a history of their own: else each would hold, and write, all before it again.
            bare = [msgspec.structs.replace(one, history=()) for one in reversed(newest_first)]
            self._thoughts = (*oldest, *bare)
        return self._thoughts

    @overload
    def __getitem__(self, index: int) -> Thought: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Thought, ...]: ...
    def __getitem__(self, index: int | slice) -> Thought | tuple[Thought, ...]:
        return self.all()[index]

    def __len__(self) -> int:
        return len(self.all())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self.all() == tuple(other)  # pyright: ignore[reportUnknownArgumentType]

    def __hash__(self) -> int:
        return hash(self.all())

    def __repr__(self) -> str:
        return "History(not read yet)" if self._thoughts is None else f"History({self._thoughts!r})"


class Thought(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The state of a run: what was asked, found and written, and what was said of it.

    Attributes:
        prompt: what the user asked for.
        system_prompt: the standing instructions, or None.
        model_prompt: the whole text that was sent to the model for ``text``.
        text: the text of this iteration; empty before the first generation.
        pre_generation_context: documents retrieved before generation.
        post_generation_context: documents retrieved for the critics, after generation.
        validation_results: one verdict a validator, in the chain's order.
        critic_feedback: one feedback a critic, in the chain's order.
        history: the thoughts of the earlier iterations, oldest first, their own history left out.
        iteration: 0 for the first text, then one more for each improvement.
        id: this thought; unique within its chain, and the same after a resume.
        parent_id: the thought this one improves on, or None.
        chain_id: the run it belongs to.
        timestamp: when it came to be (UTC).
        metadata: free JSON-like values; ``passed``, ``cost`` and ``in_doubt`` are properties on it.
    """

    prompt: str
    system_prompt: str | None = None
    model_prompt: str | None = None
    text: str = ""
    pre_generation_context: tuple[Document, ...] = ()
    post_generation_context: tuple[Document, ...] = ()
    validation_results: tuple[ValidationResult, ...] = ()
    critic_feedback: tuple[CriticFeedback, ...] = ()
    history: Sequence[Thought] = ()
    iteration: int = 0
    id: str = ""
    parent_id: str | None = None
    chain_id: str = ""
    timestamp: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    passed: bool = False
    cost: float = 0.0
    cost_unknown_calls: int = 0
    in_doubt: tuple[DoubtfulCall, ...] = ()
    metadata: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])

    @property
    def retrieved_documents(self) -> tuple[Document, ...]:
        """Every document of the run: before generation, then before criticism."""
        return self.pre_generation_context + self.post_generation_context

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON-like values; :meth:`from_dict` gives back an equal thought."""
        data: dict[str, Any] = msgspec.to_builtins(
            msgspec.structs.replace(self, history=()), builtin_types=(datetime,)
        )
        data["timestamp"] = self.timestamp.isoformat()
        if self.history:
            data["history"] = [thought.to_dict() for thought in self.history]
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Thought:
        """What :meth:`to_dict` wrote. Raises ``msgspec.ValidationError`` on a bad shape."""
        plain = {key: value for key, value in data.items() if key != "history"}
        thought = msgspec.convert(plain, cls)
        history = tuple(cls.from_dict(one) for one in data.get("history", ()))
        return msgspec.structs.replace(thought, history=history)
