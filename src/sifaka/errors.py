"""Every error sifaka raises, as one tree split by who must act (floor 0).

::

    SifakaError
    ├── UsageError                 the caller: change the program or the command
    │   ├── MissingPromptError     a chain was run without a prompt
    │   ├── ChainIdError           a chain id that is empty, too long or unprintable
    │   ├── UnknownChainError      no log of that name in the store
    │   ├── PlanChangedError       the log was written by a chain with other parts
    │   ├── PartError              a part that is none, or answered with the wrong type
    │   └── ModelSpecError         a model spec that cannot be opened
    │       ├── UnknownModelError  no such provider or model
    │       ├── MissingExtraError  a library is not installed
    │       └── MissingKeyError    a credential is not set
    ├── ModelError                 the provider: what a model call of ours failed with
    ├── StorageError               the store, or whoever runs it
    │   ├── StoreUnreachableError  it cannot be opened or reached; a later try may succeed
    │   ├── SimilarityError        similar cases cannot be had; a run goes on without them
    │   └── OwnershipError         somebody else has the run
    │       ├── OwnedError         a living owner holds the lease
    │       ├── FencedError        this owner lost the lease: its append was refused
    │       └── SplitHistoryError  two stores hold different continuations of the run
    ├── DataError                  the data: what is stored, or was to be stored
    │   ├── UnstorableError        a value no record can hold
    │   ├── DamagedRecordError     a record whose checksum is wrong
    │   ├── ArchiveError           an archive that is none, or is damaged
    │   └── FormatError            a record of a newer format than this version reads
    └── ChainError                 a run stopped before it was done; its log is kept

Errors carry their facts as fields, chain their cause, and say what to do next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sifaka.faults import Fault
    from sifaka.recovery.actions import RecoveryAction
    from sifaka.thought import Thought

__all__ = [
    "ArchiveError",
    "ChainError",
    "ChainIdError",
    "DamagedRecordError",
    "DataError",
    "FencedError",
    "FormatError",
    "MissingExtraError",
    "MissingKeyError",
    "MissingPromptError",
    "ModelError",
    "ModelSpecError",
    "OwnedError",
    "OwnershipError",
    "PartError",
    "PlanChangedError",
    "SifakaError",
    "SimilarityError",
    "SplitHistoryError",
    "StorageError",
    "StoreUnreachableError",
    "UnknownChainError",
    "UnknownModelError",
    "UnstorableError",
    "UsageError",
]


class SifakaError(Exception):
    """The root: ``except SifakaError`` catches everything this library raises itself."""


class UsageError(SifakaError):
    """The caller has to change something; nothing was called and nothing was stored."""


class MissingPromptError(UsageError):
    """A chain was run without a prompt."""


class ChainIdError(UsageError):
    """A chain id that is empty, longer than 200 characters, or holds control characters."""


class UnknownChainError(UsageError):
    """The store has no log of that name."""

    def __init__(self, chain_id: str) -> None:
        super().__init__(f"the store holds no run named {chain_id!r}; check the id and the store's address")
        self.chain_id = chain_id


class PlanChangedError(UsageError):
    """The log was written by another plan: another prompt, or other parts by kind, name or order.

    ``differences`` are sentences, one a difference.
    """

    def __init__(self, chain_id: str, differences: Sequence[str]) -> None:
        super().__init__(
            f"the run {chain_id!r} was started with another plan: {'; '.join(differences)}. "
            "Either put the old plan back, or go on under the new one with "
            'with_options(on_plan_change="accept"), or fork() the run, or choose a new chain_id'
        )
        self.chain_id = chain_id
        self.differences = tuple(differences)


class PartError(UsageError):
    """A model, retriever, validator or critic that is none, or that answered with a wrong type."""


class ModelSpecError(UsageError):
    """A model spec that cannot be opened; ``spec`` is what was asked for."""

    def __init__(self, message: str, spec: str = "") -> None:
        super().__init__(message)
        self.spec = spec


class UnknownModelError(ModelSpecError):
    """No provider or model of that name; the message names near misses."""


class MissingExtraError(ModelSpecError):
    """A library is missing; the message has the command that installs it."""


class MissingKeyError(ModelSpecError):
    """A credential is missing; the message names the environment variable."""


class ModelError(SifakaError):
    """A model call of ours failed.

    ``kind`` is one of :data:`sifaka.faults.KINDS`; ``status`` the HTTP status where there was one;
    ``retry_after_s`` the wait the provider stated, in seconds; ``finish_reason`` why it stopped.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
        finish_reason: str | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.retry_after_s = retry_after_s
        self.finish_reason = finish_reason


class StorageError(SifakaError):
    """The store failed; what had been acknowledged before is still there.

    Where it ended a run, ``thought`` is the run's best draft, also what could not be recorded any more:
    it may have been paid, and is nowhere else.
    """

    thought: Thought | None = None


class StoreUnreachableError(StorageError):
    """The store cannot be opened or reached; ``url`` says which."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"the store {url} cannot be reached: {why}")
        self.url = url


class SimilarityError(StorageError):
    """Similar cases cannot be stored or found just now; a run goes on without them."""


class OwnershipError(StorageError):
    """The run belongs to somebody else."""


class OwnedError(OwnershipError):
    """A living owner holds the run; ``owner`` says who, ``until`` when its lease ends (unix s)."""

    def __init__(self, chain_id: str, owner: str, until: float, seconds_left: float) -> None:
        super().__init__(
            f"the run {chain_id!r} is being run by {owner}; its lease ends in {seconds_left:.0f} s "
            "unless it is renewed. Wait with resume(wait=seconds), or stop that process"
        )
        self.chain_id = chain_id
        self.owner = owner
        self.until = until


class FencedError(OwnershipError):
    """An append was refused: another owner took the run over. What it wrote stands."""

    def __init__(self, chain_id: str, token: int, seq: int) -> None:
        super().__init__(
            f"record {seq} of run {chain_id!r} was refused: token {token} is no longer the "
            "current one, somebody else took the run over. Their run goes on; stop this one"
        )
        self.chain_id = chain_id
        self.token = token
        self.seq = seq


class SplitHistoryError(OwnershipError):
    """Two stores hold different continuations of a run; nothing was merged and nothing was dropped.

    ``primary_last`` (-1: no such run) and ``primary_token`` tell where the primary's log stands,
    ``journal_first`` and ``journal_last`` which records the fallback journal holds; ``repeats`` is the number
    of paid results in both since the split, ``repeats_usd`` their price in US dollars as far as it is known.
    """

    def __init__(
        self,
        chain_id: str,
        why: str,
        *,
        primary_last: int,
        primary_token: int,
        journal_first: int,
        journal_last: int,
        repeats: int = 0,
        repeats_usd: float = 0.0,
    ) -> None:
        head = f"record {primary_last}" if primary_last >= 0 else "no record"
        paid = f"{repeats} results may have been paid twice (${repeats_usd:.2f}). " if repeats else ""
        super().__init__(
            f"the history of run {chain_id!r} is split: the primary ends at {head} under token "
            f"{primary_token}, the fallback journal holds records {journal_first} to {journal_last}, and "
            f"{why}. {paid}Nothing was merged. Either drop the journal's part with "
            f"keep_primary({chain_id!r}), or make a run of its own with keep_journal_as({chain_id!r}, "
            "new_id), or put the primary in order and call move_over()"
        )
        self.chain_id = chain_id
        self.primary_last = primary_last
        self.primary_token = primary_token
        self.journal_first = journal_first
        self.journal_last = journal_last
        self.repeats = repeats
        self.repeats_usd = repeats_usd


class DataError(SifakaError):
    """Something stored, or about to be stored, is not what it must be."""


class UnstorableError(DataError):
    """A value that no record can hold (not JSON-like, nested too deep, lone surrogates, too big)."""


class DamagedRecordError(DataError):
    """Records ``first`` to ``last`` of a chain are damaged; they are left in place."""

    def __init__(self, chain_id: str, first: int, last: int, why: str) -> None:
        super().__init__(
            f"records {first} to {last} of run {chain_id!r} are damaged ({why}). They are left in "
            f"place; go on from the newest sound checkpoint with fork(before={first})"
        )
        self.chain_id = chain_id
        self.first = first
        self.last = last
        self.why = why


class ArchiveError(DataError):
    """The archive at ``path`` is none, or is damaged; nothing was written."""

    def __init__(self, path: object, why: str) -> None:
        super().__init__(f"the archive {path} cannot be used: {why}. Nothing was changed")
        self.path = str(path)


class FormatError(DataError):
    """A record or store of a newer format than this version reads; it is left untouched."""

    def __init__(self, what: str, found: int, known: int) -> None:
        super().__init__(
            f"{what} has format {found}, this version of sifaka reads up to {known}; "
            "install a newer sifaka. Nothing was changed"
        )
        self.found = found
        self.known = known


class ChainError(SifakaError):
    """A run stopped before it was done; its log is kept and can be resumed.

    ``thought`` is the best draft so far (its text may be empty), ``fault`` what went wrong (None
    where a limit of the caller's ended the run), ``suggestions`` the ranked recovery actions, best
    first; ``reason`` is one plain sentence. The original exception is ``__cause__``.
    """

    def __init__(
        self,
        chain_id: str,
        reason: str,
        *,
        thought: Thought,
        fault: Fault | None,
        suggestions: Sequence[RecoveryAction] = (),
    ) -> None:
        hint = f" Best next step: {suggestions[0].description}." if suggestions else ""
        super().__init__(f"run {chain_id!r} stopped: {reason}.{hint} Its log is kept: resume() goes on")
        self.chain_id = chain_id
        self.reason = reason
        self.thought = thought
        self.fault = fault
        self.suggestions = tuple(suggestions)
