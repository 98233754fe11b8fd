"""The kinds of fault on one page: will the same call help later, what is paid, why, what to do (floor 1).

A kind has one row; three kinds have a second row for their other temper (a rate limit one request
alone exceeds, a connection that a certificate forbids, a text whose stream was cut). Everything
else that is known of a kind (names, statuses, phrases) only serves to find its row.
"""

from __future__ import annotations

from functools import cache

import msgspec

__all__ = ["BILLED", "KINDS", "TABLE", "Row", "Verdict", "row"]

BILLED = ("no", "maybe", "partly", "yes")
"""What a failed call may have cost: nothing, unknown, a part of the answer, all of it."""


class Row(msgspec.Struct, frozen=True):
    """What is true of a kind: ``billed`` where nothing says otherwise, sentences for people."""

    kind: str
    transient: bool
    billed: str
    why: str
    fix: str


class Verdict(msgspec.Struct, frozen=True):
    """What one piece of evidence says: a kind and, where it knows better than the row, more."""

    kind: str
    transient: bool | None = None
    billed: str | None = None

    @property
    def hopeful(self) -> bool:
        """Whether the same call may succeed later."""
        return row(self.kind).transient if self.transient is None else self.transient


TABLE: tuple[Row, ...] = (
    Row(
        "rate_limit",
        transient=True,
        billed="no",
        why="the provider's rate limit was reached",
        fix="wait as long as it asks, then repeat the step; fewer calls at once help too",
    ),
    Row(
        "rate_limit",
        transient=False,
        billed="no",
        why="the request does not fit into the rate limit, and waiting will not change that",
        fix="make the request smaller: fewer documents, a shorter context, a lower max_tokens",
    ),
    Row(
        "quota_exhausted",
        transient=False,
        billed="no",
        why="the account's quota, credit or spending limit is used up",
        fix="top up or raise the limit, use another provider, or wait until the quota is reset",
    ),
    Row(
        "overloaded",
        transient=True,
        billed="no",
        why="the provider has more requests than it can serve",
        fix="wait with a long random delay and repeat the step, or use another model meanwhile",
    ),
    Row(
        "server_error",
        transient=True,
        billed="maybe",
        why="the provider failed on its own side",
        fix="repeat the step after a short delay",
    ),
    Row(
        "timeout",
        transient=True,
        billed="maybe",
        why="no answer came in time",
        fix="repeat the step, or ask for less at once, or allow more time",
    ),
    Row(
        "connection",
        transient=True,
        billed="maybe",
        why="the connection to the provider failed",
        fix="repeat the step; if it persists, check the network, the address and the proxy",
    ),
    Row(
        "connection",
        transient=False,
        billed="no",
        why="no trusted connection can be made to that address",
        fix="repair the certificates or the address; repeating the call will not help",
    ),
    Row(
        "auth",
        transient=False,
        billed="no",
        why="the provider does not accept the credentials",
        fix="set a valid key for this provider, then resume",
    ),
    Row(
        "permission",
        transient=False,
        billed="no",
        why="the account may not use this model or this operation",
        fix="ask for access, or choose a model the account may use",
    ),
    Row(
        "not_found",
        transient=False,
        billed="no",
        why="the provider knows no model or resource of that name",
        fix="correct the name, or choose a model the provider offers today",
    ),
    Row(
        "invalid_request",
        transient=False,
        billed="no",
        why="the provider refuses the request as it stands",
        fix="change what the message names: a parameter, a value or the order of messages",
    ),
    Row(
        "context_length",
        transient=False,
        billed="no",
        why="the input is longer than the model can read",
        fix="shorten the context or retrieve fewer documents, or use a model with a larger window",
    ),
    Row(
        "content_filter",
        transient=False,
        billed="maybe",
        why="a content filter blocked the prompt or the answer",
        fix="reword the prompt or the documents, or skip the step if it may be skipped",
    ),
    Row(
        "truncated",
        transient=False,
        billed="yes",
        why="the answer reached its length limit before it was complete",
        fix="raise max_tokens, or ask for a shorter answer",
    ),
    Row(
        "truncated",
        transient=True,
        billed="partly",
        why="the stream broke off before the answer was complete",
        fix="continue from the part that arrived, or repeat the step",
    ),
    Row(
        "malformed_output",
        transient=True,
        billed="yes",
        why="the answer cannot be parsed",
        fix="repeat the step once, then start again from the generation",
    ),
    Row(
        "empty_output",
        transient=True,
        billed="yes",
        why="the model answered with nothing",
        fix="repeat the step once, then start again from the generation",
    ),
    Row(
        "out_of_memory",
        transient=False,
        billed="no",
        why="the machine that runs the model, or this one, has too little memory",
        fix="use a smaller context, a smaller batch or a smaller model",
    ),
    Row(
        "validation_failed",
        transient=False,
        billed="yes",
        why="the answer was read and does not meet what was asked of it",
        fix="start again from the generation with the verdict as feedback",
    ),
    Row(
        "other",
        transient=False,
        billed="maybe",
        why="the cause is not one that is known here",
        fix="read the message and the chain of causes",
    ),
)

KINDS: tuple[str, ...] = tuple(dict.fromkeys(each.kind for each in TABLE))
"""The closed set of kinds."""


@cache
def row(kind: str, transient: bool | None = None) -> Row:
    """The row of a kind, the one of that temper if it has two. Raises KeyError on no such kind."""
    rows = [each for each in TABLE if each.kind == kind]
    if not rows:
        raise KeyError(kind)
    return next((each for each in rows if each.transient is transient), rows[0])
