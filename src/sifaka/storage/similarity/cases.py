"""Nearest faults: cases of what happened before, found again by text and context (floor 3).

Similarity suggests: how an action fared with faults like this one. It never restores state, and a run goes
on without it. What is stored has no secrets in it, and is read back as cases or not at all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import msgspec

from sifaka.errors import SimilarityError
from sifaka.faults import redact

__all__ = [
    "TEXT_CHARS_MAX",
    "Case",
    "EmbeddingFunction",
    "Match",
    "Similarity",
    "SimilarityError",
    "decode",
    "encode",
    "storable",
]

EmbeddingFunction = Callable[[str], Sequence[float]]
"""A text's embedding: finite numbers, always as many, not all zero."""

TEXT_CHARS_MAX = 2_000
PAYLOAD_BYTES_MAX = 32_768


class Case(msgspec.Struct, frozen=True, gc=False):
    """A fault that happened, and what was done about it.

    Attributes:
        case_id: ``"chain_id:record number"``. A case added under an id that is there takes its place.
        chain_id: the run it happened in.
        text: what the fault said; what is stored is redacted, and cut at 2,000 characters.
        kind: one of :data:`sifaka.faults.KINDS`; empty or "other" is like no other kind.
        step: the step it happened in.
        iteration: 0 for the first text.
        part: the part's name.
        model: the model's spec.
        action: the value of the strategy that was tried; empty for none.
        parameters: the action's parameters.
        success: whether it worked; None while that is open.
        at: when the fault happened, in unix seconds.
    """

    case_id: str
    chain_id: str
    text: str
    kind: str = ""
    step: str = ""
    iteration: int = 0
    part: str = ""
    model: str = ""
    action: str = ""
    parameters: dict[str, Any] = {}
    success: bool | None = None
    at: float = 0.0


class Match(msgspec.Struct, frozen=True, gc=False):
    """A case and how similar it is: 1 for the same in all that is known, 0 for nothing in common."""

    case: Case
    similarity: float


class Similarity(ABC):
    """Where cases are kept and found again. Raises SimilarityError and nothing else for its own faults.

    Implementations are thread-safe. ``lies`` counts what was stored or answered and could not be true;
    such a thing is left out.
    """

    lies = 0

    def add(self, cases: Iterable[Case]) -> None:
        """Keep the cases, without the secrets in their texts. Adding a case again replaces it."""
        latest = {case.case_id: storable(case) for case in cases}
        if latest:
            self.keep(list(latest.values()))

    @abstractmethod
    def keep(self, cases: Sequence[Case]) -> None:
        """Keep cases that are :func:`storable` already, each id once; what :meth:`add` calls."""

    @abstractmethod
    def nearest(self, case: Case, limit: int = 10) -> list[Match]:
        """The ``limit`` most similar cases, best first; never the case itself, as its id tells it.

        What was done in ``case`` and what came of it plays no part.
        """

    @abstractmethod
    def forget(self, chain_ids: Iterable[str]) -> None:
        """Remove the cases of these runs."""

    @abstractmethod
    def count(self) -> int:
        """How many cases are kept."""

    def close(self) -> None:  # noqa: B027 - what has nothing open has nothing to give back
        """Give back what is held open."""


def storable(case: Case) -> Case:
    """The case as it is stored: no secrets, no endless text.

    Raises SimilarityError for one that cannot be stored: parameters that are no plain values, or too big.
    """
    clean = msgspec.structs.replace(
        case,
        text=_clean(case.text[: 10 * TEXT_CHARS_MAX])[:TEXT_CHARS_MAX],
        part=_clean(case.part),
        model=_clean(case.model),
        parameters=_clean_values(case.parameters),
    )
    encode(clean)
    return clean


def _clean(text: str) -> str:
    """Redacted, before it may be cut, so that no cut hides what a key is; encodable."""
    return redact(text).encode("utf-8", "replace").decode()


def _clean_values(value: Any) -> Any:
    """A value that was given as parameters, with every text in it redacted."""
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, dict):
        named = cast("Mapping[Any, Any]", value)
        # a name and its value are redacted together: what a name promises to be a secret is one
        return {str(key): _clean_named(str(key), item) for key, item in named.items()}
    if isinstance(value, list | tuple):
        return [_clean_values(item) for item in cast("Sequence[Any]", value)]
    return value


def _clean_named(name: str, value: Any) -> Any:
    if isinstance(value, str):
        prefix = f"{name}="
        return _clean(prefix + value).removeprefix(prefix)
    return _clean_values(value)


def encode(case: Case) -> bytes:
    """A case as JSON, which every store can hold. Raises SimilarityError."""
    try:
        payload = msgspec.json.encode(case)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise SimilarityError(f"the case {case.case_id!r} cannot be stored: {error}") from error
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise SimilarityError(
            f"the case {case.case_id!r} is {len(payload)} bytes; at most {PAYLOAD_BYTES_MAX}"
        )
    return payload


def decode(payload: bytes | str) -> Case | None:
    """A case from its JSON; None for anything else. Nothing that is stored can make code run."""
    try:
        return msgspec.json.decode(payload, type=Case)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
