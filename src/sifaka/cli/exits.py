"""Exit codes: what a script learns from a command without reading what it prints (floor 9)."""

from __future__ import annotations

from sifaka.errors import ChainError, DataError, OwnershipError, StorageError, UsageError

__all__ = ["DAMAGED", "FAILED", "FINE", "INTERRUPTED", "OWNED", "UNREACHABLE", "USAGE", "code_of"]

FINE = 0
FAILED = 1
"""A run failed, or the command did."""
USAGE = 2
"""The command was typed wrong, or names a run that is not there."""
UNREACHABLE = 3
"""The store cannot be opened or reached."""
DAMAGED = 4
"""A record is damaged, or of a newer format than this version reads."""
OWNED = 5
"""The run belongs to another process."""
INTERRUPTED = 130
"""Ctrl-C, as shells count it."""

_CODES: tuple[tuple[type[Exception], int], ...] = (
    (UsageError, USAGE),
    (OwnershipError, OWNED),
    (StorageError, UNREACHABLE),
    (DataError, DAMAGED),
    (ChainError, FAILED),
)


def code_of(error: Exception) -> int:
    """The exit code for an error of ours."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)
