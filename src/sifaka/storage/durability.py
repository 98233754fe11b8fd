"""What a server's settings keep of what a store promises: refused, warned of, or in order (floor 3)."""

from __future__ import annotations

import warnings

from sifaka.errors import StorageError, UsageError
from sifaka.storage.base import DURABILITIES, Durability

__all__ = ["DurabilityWarning", "as_durability", "is_weaker", "loss", "refuse_weaker", "warn_of_weaker"]

_LOSSES: dict[Durability, str] = {
    "none": "what was acknowledged may vanish at any time",
    "process": "the death of the server loses what it had acknowledged since its last snapshot",
    "server": "a power cut loses about the last second of what was acknowledged",
    "power": "nothing that was acknowledged is lost",
}


class DurabilityWarning(UserWarning):
    """The store keeps less than the machine's power supply failing would need; nobody asked for that."""


def as_durability(text: str) -> Durability:
    """The class of that name. Raises UsageError for any other text."""
    for one in DURABILITIES:
        if one == text:
            return one
    raise UsageError(f"durability is one of {', '.join(DURABILITIES)}, not {text!r}")


def is_weaker(kept: Durability, asked: Durability) -> bool:
    """Whether ``kept`` survives less than ``asked``."""
    return DURABILITIES.index(kept) < DURABILITIES.index(asked)


def loss(kept: Durability) -> str:
    """What a store of this class may lose, as part of a sentence."""
    return _LOSSES[kept]


def refuse_weaker(url: str, kept: Durability, asked: Durability, cure: str) -> None:
    """Raise StorageError where the store keeps less than ``asked``; ``cure`` says what to set."""
    if is_weaker(kept, asked):
        raise StorageError(
            f"the store {url} keeps durability {kept!r} and {asked!r} is the least that will do: "
            f"{loss(kept)}. Nothing was written. {cure}, or ask for durability={kept!r}"
        )


def warn_of_weaker(url: str, kept: Durability, cure: str) -> None:
    """Warn where the store keeps less than "power" and nobody has said that this will do."""
    if is_weaker(kept, "power"):
        warnings.warn(
            f"the store {url} keeps durability {kept!r}: {loss(kept)}. {cure}, or say that it will do "
            f"with durability={kept!r}",
            DurabilityWarning,
            stacklevel=2,
        )
