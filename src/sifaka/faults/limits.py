"""Rate or quota, and what it cost: what a verdict alone cannot say (floor 1)."""

from __future__ import annotations

from sifaka.faults.evidence import Evidence
from sifaka.faults.names import is_hard_quota
from sifaka.faults.phrases import hard_quota, per_minute, too_big
from sifaka.faults.table import Verdict, row
from sifaka.faults.waits import QUOTA_WAIT_S

__all__ = ["billed", "weigh_limits"]


def weigh_limits(verdict: Verdict, found: Evidence, text: str, wait: float | None) -> Verdict:
    """A limit is a rate if a short wait cures it, a quota if only a long one or money does."""
    long = wait is not None and wait > QUOTA_WAIT_S
    if verdict.kind == "rate_limit":
        if long:
            return Verdict("quota_exhausted")
        return Verdict("rate_limit", transient=False) if too_big(text) else verdict
    if verdict.kind == "quota_exhausted" and not _is_hard(found, text):
        short = wait is not None and not long
        return Verdict("rate_limit") if short or per_minute(text) else verdict
    return verdict


def _is_hard(found: Evidence, text: str) -> bool:
    names = (*(type(link).__name__ for link in found.links), *found.codes, *found.classes)
    return 402 in found.statuses or any(map(is_hard_quota, names)) or hard_quota(text)


def billed(kind: str, transient: bool, found: Evidence) -> str:
    """What the call cost where the verdict itself does not say; see :data:`BILLED`."""
    status = next(iter(found.statuses), 0)
    answered = kind in ("truncated", "malformed_output", "empty_output", "validation_failed")
    refused = (400 <= status < 500 and kind != "timeout") or status in (503, 529)
    if found.unsent:
        return "no"
    if (found.in_stream or 200 <= status < 300) and not answered:
        return "yes" if kind == "content_filter" else "partly"
    return "no" if refused else row(kind, transient).billed
