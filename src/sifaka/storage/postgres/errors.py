"""What a Postgres error means: come again, or do this first (floor 3).

Told by SQLSTATE, which does not depend on the server's language; where a connection is refused libpq gives
a text only.
"""

from __future__ import annotations

import psycopg

from sifaka.errors import StorageError, StoreUnreachableError, UnstorableError

__all__ = ["explain", "is_conflict", "is_forgotten"]

_UNREACHABLE = {
    "57P01": "the server ended the connection",
    "57P02": "the server crashed and starts again",
    "57P03": "the server is starting or stopping",
    "57P05": "the server ended the idle connection",
    "57014": "the server did not finish the statement in time",
    "55P03": "the server did not give a lock in time",
    "25P03": "the server ended the idle transaction",
    "53300": "the server has no connection left; raise max_connections or lower pool_size",
}
_ADVICE = {
    "53100": "the server's disk is full: free some space, then resume",
    "53200": "the server is out of memory",
    "42501": "grant this user the rights it lacks, or connect as the tables' owner",
    "42P01": "a table of the store is missing; open it anew to have it created",
    "3F000": "the schema is missing; open the store anew to have it created",
    "25006": "it is a standby or read-only; connect to the primary, with several hosts in the address "
    "by target_session_attrs=read-write",
    "57P04": "the database was dropped",
    "XX001": "the server found damage in its files: restore from a backup",
    "XX002": "the server found a damaged index: REINDEX it",
}
_CONFLICTS = ("40001", "40P01")
_FORGOTTEN = ("26000", "42P05", "08P01")
_REFUSALS = (
    "authentication failed",
    "no password supplied",
    "does not exist",
    "no pg_hba.conf entry",
    "permission denied",
    "does not support SSL",
    "certificate",
    "not permitted to log in",
    "is not currently accepting connections",
)


def is_conflict(error: psycopg.Error) -> bool:
    """Whether two transactions were in each other's way: nothing was written, and it may be tried again."""
    return error.sqlstate in _CONFLICTS


def is_forgotten(error: psycopg.Error) -> bool:
    """Whether a prepared statement is unknown: a pooler between has changed the server's session."""
    return error.sqlstate in _FORGOTTEN and "prepared statement" in str(error)


def explain(error: Exception, url: str) -> StorageError | UnstorableError:
    """The typed error for what psycopg raised, with what helps."""
    if isinstance(error, UnicodeError):
        return UnstorableError("a text with lone surrogates cannot be stored in Postgres")
    said = " ".join(str(error).split())
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    if state in _UNREACHABLE:
        return StoreUnreachableError(url, f"{_UNREACHABLE[state]} ({said})")
    if state is not None and not state.startswith("08"):
        advice = _ADVICE.get(state, f"SQLSTATE {state}")
        return StorageError(f"the store {url} failed: {said} ({advice})")
    if any(word in said for word in _REFUSALS):
        return StorageError(f"the store {url} refused the connection: {said}")
    return StoreUnreachableError(url, said)
