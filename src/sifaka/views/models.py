"""The view models: a run as plain values that any rendering can show, or write as JSON (floor 5).

Times are seconds since the Unix epoch, durations seconds, prices US dollars. ``says`` is always one plain
sentence without a full stop at its end; what it quotes of a model is as the model wrote it.
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from sifaka.log.records import Status

__all__ = [
    "KINDS",
    "Cause",
    "Check",
    "Doubt",
    "FaultStory",
    "Kind",
    "Life",
    "Moment",
    "Outlook",
    "Paid",
    "RunSummary",
    "Timeline",
]

Kind = Literal[
    "started",
    "documents",
    "text",
    "verdict",
    "reply",
    "feedback",
    "fault",
    "recovery",
    "wait",
    "outcome",
    "death",
    "doubt",
    "resumed",
    "closed",
    "call",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""What a moment can be. A "call" is one in flight: it is in ``Timeline.calls`` only."""

Outlook = Literal["", "ok", "failed", "open"]
"""How a moment turned out: neither, well, badly, or not known yet."""


class Paid(msgspec.Struct, frozen=True):
    """What calls came to. ``calls`` counts every recorded answer, ``model_calls`` those of a model.

    ``seconds`` is the time the calls took, added up; ``unpriced_calls`` are those whose price is unknown.
    """

    calls: int = 0
    model_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    cost_usd: float = 0.0
    unpriced_calls: int = 0

    def __add__(self, other: Paid) -> Paid:
        return Paid(
            self.calls + other.calls,
            self.model_calls + other.model_calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.seconds + other.seconds,
            self.cost_usd + other.cost_usd,
            self.unpriced_calls + other.unpriced_calls,
        )

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.input_tokens + self.output_tokens


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened.

    Attributes:
        seq: the number of the record it is made of.
        at: when that was recorded; for a death, when the dead process recorded last.
        kind: what it is, one of :data:`KINDS`.
        status: how it turned out.
        says: one plain sentence.
        detail: the whole text, feedback or message behind it.
        life: which process's it was, from 1 on.
        step: the named step that had been reached before it.
        operation: what was being done.
        iteration: 0 for the first text.
        part: the retriever, validator or critic, or "model".
        model: the model that was asked.
        code: one word for programs: the fault's kind, the strategy, why a life began, the final status.
        about: the record it belongs to (an outcome's recovery, a fault's or a doubt's call), or -1.
        seconds: how long it took, None where that means nothing.
        until: when a wait ends.
        paid: what it came to, where it is a recorded answer.
        price_max_usd: the most that a call in flight or in doubt can cost, None where unknown.
    """

    seq: int
    at: float
    kind: Kind
    says: str
    status: Outlook = ""
    detail: str = ""
    life: int = 1
    step: str = ""
    operation: str = ""
    iteration: int = 0
    part: str = ""
    model: str = ""
    code: str = ""
    about: int = -1
    seconds: float | None = None
    until: float = 0.0
    paid: Paid | None = None
    price_max_usd: float | None = None


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """What happened in a run, in order, and what is under way.

    ``moments[:shared]`` were shared with the run this one is a fork of, and are not paid by this one.
    ``calls`` are in flight, or were when the process was last heard of. ``steps_done`` of ``steps_max``
    steps are done; a run may end before the last.
    """

    chain_id: str
    prompt: str
    status: Status
    began_at: float
    last_at: float
    life: int
    operation: str
    iteration: int
    steps_done: int
    steps_max: int
    moments: tuple[Moment, ...] = ()
    calls: tuple[Moment, ...] = ()
    shared: int = 0


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """One life of a run: a process that worked at it.

    ``cause`` is why it began: "new", "death" (of the one before), "continue", "retry", "fork". ``end`` is
    how it ended: "death", a status, or empty while it lasts. ``paid`` is its own, ``kept`` all that was
    paid until its end: none of that is ever paid again.
    """

    number: int
    cause: str
    end: str
    began_at: float
    last_at: float
    paid: Paid
    kept: Paid
    says: str


class Doubt(msgspec.Struct, frozen=True, kw_only=True):
    """A call that was sent and whose answer was never recorded: it may have been paid.

    ``price_max_usd`` is the most it can have cost, None where unknown. ``cause`` is "death", or the kind of
    fault that ended it; ``repeated`` says that it was made again.
    """

    seq: int
    life: int
    operation: str
    iteration: int
    part: str
    model: str
    price_max_usd: float | None
    cause: str
    repeated: bool
    says: str


class FaultStory(msgspec.Struct, frozen=True, kw_only=True):
    """A fault, why it happened, what was done, and what came of it.

    ``says`` is its cause. ``action`` is empty where nothing was done; ``success`` is None while its
    outcome is open.
    """

    seq: int
    at: float
    life: int
    operation: str
    iteration: int
    part: str
    attempt: int
    kind: str
    error_class: str
    signature: str
    says: str
    message: str
    strategy: str = ""
    action: str = ""
    why: str = ""
    confidence: float = 0.0
    evidence: str = ""
    chosen_by: str = ""
    delay_s: float = 0.0
    success: bool | None = None


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Faults of one signature together: why they happened, how often, and what was done each time."""

    signature: str
    kind: str
    says: str
    times: int
    done: tuple[str, ...]


class Check(msgspec.Struct, frozen=True):
    """What one validator says of the text that a run returns."""

    validator: str
    passed: bool
    says: str


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """How a run stands.

    ``text`` is the best so far, of ``iteration``; ``checks`` are its verdicts, ``judged`` says that they are
    all there, and ``passed`` that they are good enough. ``doubt_usd_max`` is the most that all doubtful
    calls can have cost, those of unknown price (``doubts_unpriced``) left out. ``says`` is the whole in one
    sentence.
    """

    chain_id: str
    prompt: str
    model: str
    status: Status
    reason: str
    says: str
    judged: bool
    passed: bool
    text: str
    iteration: int
    checks: tuple[Check, ...]
    began_at: float
    last_at: float
    active_s: float
    totals: Paid
    lives: tuple[Life, ...]
    doubts: tuple[Doubt, ...]
    doubt_usd_max: float
    doubts_unpriced: int
    faults: tuple[FaultStory, ...]
    causes: tuple[Cause, ...]

    @property
    def deaths(self) -> tuple[Life, ...]:
        """The lives that ended by death."""
        return tuple(life for life in self.lives if life.end == "death")
