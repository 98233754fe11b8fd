"""The vocabulary of the log: the ten kinds of record, a closed set of frozen structs (floor 2).

A record is never rewritten. Its sequence number is its place in the log and is not stored in it;
``intent`` and ``recovery`` fields hold the sequence number of the record they belong to. Structs are
arrays on the wire: new fields may only be added at the end, with a default.

Times (``at``) are seconds since the Unix epoch, durations are seconds, prices US dollars.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

from sifaka.faults import Fault
from sifaka.parts import Usage
from sifaka.thought import CriticFeedback, Document, DoubtfulCall, ValidationResult

__all__ = [
    "OPERATIONS",
    "STATUSES",
    "STEPS",
    "Best",
    "Changed",
    "Closed",
    "Faulted",
    "Handle",
    "Intent",
    "OpenRecovery",
    "Opened",
    "Operation",
    "Outcome",
    "Partial",
    "PlannedPart",
    "Position",
    "Reached",
    "Record",
    "Recovery",
    "Result",
    "Status",
    "Summary",
    "Totals",
]

Step = Literal[
    "initialization",
    "pre_retrieval",
    "generation",
    "validation",
    "pre_criticism",
    "criticism",
    "complete",
]
Operation = Literal["retrieval", "generation", "validation", "critic_retrieval", "criticism", "complete"]
Status = Literal["running", "waiting", "interrupted", "failed", "cancelled", "done"]

STEPS: tuple[Step, ...] = get_args(Step)
"""The named steps of a run, in order; a checkpoint's ``current_step`` is one of them."""
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
"""What a run does, in order; a checkpoint's ``recovery_point`` is one of them."""
STATUSES: tuple[Status, ...] = get_args(Status)
"""What a run can be."""


class _Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What all records share: when it was written."""

    at: float


class _Part(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A value inside a record."""


class Position(_Part, frozen=True):
    """Where a run goes on: the operation, in which iteration.

    ``afresh`` says that the next generation starts from the prompt alone, not from an earlier draft.
    """

    operation: Operation
    iteration: int = 0
    afresh: bool = False


class PlannedPart(_Part, frozen=True):
    """One part of the plan; ``fingerprint`` digests its settings, ``name`` is what identifies it."""

    kind: str
    name: str
    fingerprint: str = ""


class Totals(_Part, frozen=True):
    """What a run has used so far, over all its lives."""

    cost_usd: float = 0.0
    unpriced_calls: int = 0
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class Best(_Part, frozen=True):
    """The best text so far: most validators passed, then highest mean score, then latest."""

    seq: int
    iteration: int
    passed: int
    mean_score: float


class Changed(_Part, frozen=True):
    """Prompt, plan and settings in force, where a later life changed what the first record says."""

    prompt: str
    system_prompt: str | None
    parts: tuple[PlannedPart, ...]
    settings: dict[str, Any]


class Opened(_Record, frozen=True, tag=1):
    """A life of the run begins: the first is its start, each later one a resume.

    The first holds prompt, plan and settings; a later one only what has changed (None: unchanged).
    ``cause`` is why: "new", "death" (its owner died), "continue" (it was interrupted or an action was
    applied), "retry" (an explicit new call on a failed run: a new allowance), "fork". ``doubts`` are the
    intents found without a result.
    """

    chain_id: str
    prompt: str | None = None
    system_prompt: str | None = None
    parts: tuple[PlannedPart, ...] | None = None
    settings: dict[str, Any] | None = None
    life: int = 1
    cause: str = "new"
    doubts: tuple[int, ...] = ()
    parent: tuple[str, int] | None = None


class Intent(_Record, frozen=True, tag=2):
    """A call that may have to be paid is about to be made; ``n`` counts the part's calls."""

    operation: Operation
    iteration: int
    part: str
    n: int
    attempt: int
    digest: str
    model: str = ""
    price_max_usd: float | None = None
    options: dict[str, Any] | None = None


class Handle(_Record, frozen=True, tag=3):
    """The provider's id for a call in flight."""

    intent: int
    provider_id: str


class Partial(_Record, frozen=True, tag=4):
    """The next piece of a stream's text: it replaces what lies behind its first ``start`` characters."""

    intent: int
    text: str
    start: int = 0


class Result(_Record, frozen=True, tag=5):
    """What one call returned, or what a part made of its calls (then ``intent`` is -1).

    Exactly one of ``text``, ``documents``, ``verdict`` and ``feedback`` is set. The first ``spliced``
    characters of a text are those of an earlier call that was cut, and which this one went on from.
    """

    intent: int
    operation: Operation
    iteration: int
    part: str
    seconds: float = 0.0
    text: str | None = None
    documents: tuple[Document, ...] | None = None
    verdict: ValidationResult | None = None
    feedback: CriticFeedback | None = None
    usage: Usage | None = None
    price_usd: float | None = None
    model: str = ""
    finish_reason: str = ""
    request_id: str = ""
    not_applied: tuple[str, ...] = ()
    spliced: int = 0


class Faulted(_Record, frozen=True, tag=6):
    """A call or a part failed. Without an ``intent``, the part made nothing of its last ``asked`` replies."""

    intent: int
    operation: Operation
    iteration: int
    part: str
    fault: Fault
    attempt: int = 1
    seconds: float = 0.0
    asked: int = 1


class Recovery(_Record, frozen=True, tag=7):
    """A recovery action is applied: from a position to a position, with parameters and a delay.

    ``chosen_by`` is "ranking", "user" or "breaker" (a provider is left alone for a while); ``evidence`` the
    counts behind the confidence, in words.
    ``counts`` is False for a wait that the provider stated: it uses up no allowance.
    ``waits_for`` are the parts that a stated wait is kept for: their failed calls were no attempts.
    ``propensity`` is the probability with which the ranking put this action first.
    """

    operation: Operation
    iteration: int
    part: str
    strategy: str
    description: str
    to: Position
    parameters: dict[str, Any]
    skips: tuple[str, ...] = ()
    sets_aside: bool = False
    confidence: float = 0.0
    delay_s: float = 0.0
    until: float = 0.0
    counts: bool = True
    chosen_by: str = "ranking"
    evidence: str = ""
    error_kind: str = ""
    error_class: str = ""
    waits_for: tuple[str, ...] = ()
    propensity: float = 1.0


class OpenRecovery(_Part, frozen=True):
    """A recovery action of which nothing has come yet: record ``seq``, and what was used before it."""

    seq: int
    record: Recovery
    totals: Totals


class Summary(_Part, frozen=True):
    """All that a run's earlier iterations come to, so that loading its state need not read them."""

    totals: Totals
    active_s: float
    parameters: dict[str, Any]
    documents_at: tuple[int, ...]
    doubts: tuple[DoubtfulCall, ...]
    best: Best | None
    life: int
    actions: int
    restarts: int
    waits: int
    waited_s: float
    changed: Changed | None = None
    recovery: OpenRecovery | None = None
    tried: tuple[str, ...] = ()
    tried_for: tuple[int, int] = (0, 0)


class Outcome(_Record, frozen=True, tag=8):
    """What came of a recovery action: did the step it was for complete, and at what cost."""

    recovery: int
    success: bool
    cost_usd: float = 0.0
    seconds: float = 0.0


class Reached(_Record, frozen=True, tag=9):
    """A named step: this is the checkpoint. ``recovery_point`` and ``to`` say where a resume goes on.

    ``seconds`` is the time spent in this step, parallel parts counted once. ``trimmed`` says that the
    texts up to here were cleaned up: it is no checkpoint any more.
    """

    step: Step
    iteration: int
    to: Position
    seconds: float = 0.0
    summary: Summary | None = None
    trimmed: bool = False


class Closed(_Record, frozen=True, tag=10):
    """The run, or this allowance of it, is over; ``best`` is the record of the text it returns."""

    status: Status
    reason: str = ""
    best: int = -1
    passed: bool = False


Record = Opened | Intent | Handle | Partial | Result | Faulted | Recovery | Outcome | Reached | Closed
"""Any record; decoding yields these types and nothing else."""
