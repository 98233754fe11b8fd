"""Keeping a store small: runs that ended go by age, and lose older texts by count (floor 3).

Runs that are running, waiting or interrupted are never touched. Whatever interrupts a clean-up, each run can
be read, resumed and cleaned up again; doing it again goes on with the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sifaka.errors import DataError, UnknownChainError, UsageError
from sifaka.log.codec import encode, link_of, raw_bytes
from sifaka.log.records import Reached, Status
from sifaka.log.trimming import Trim, trims
from sifaka.storage.base import Entry, Query, Row, Storage
from sifaka.storage.reading import read_rows

__all__ = ["ENDED", "clean_up", "ended_before", "trim_run"]

ENDED: tuple[Status, ...] = ("done", "failed", "cancelled")
"""The statuses of runs that a clean-up may touch."""
DAY_S = 86_400.0
PAGE = 500
"""How many runs a clean-up looks at together."""

Archive = Callable[[Sequence[Entry]], Sequence[Entry]]
"""Keeps runs elsewhere before something of them is removed; returns those that it has kept."""


def clean_up(
    storage: Storage,
    *,
    max_age_days: float | None,
    keep: int | None = None,
    statuses: Sequence[Status] = ENDED,
    archive: Archive | None = None,
) -> int:
    """Remove old runs and, of those that stay, older checkpoints; the number of checkpoints removed.

    Raises ValueError for numbers below 0, UsageError for a status of runs that have not ended.
    """
    for name, value in (("max_age_days", max_age_days), ("keep", keep)):
        if value is not None and not value >= 0:
            raise ValueError(f"{name} is {value}; it must not be negative")
    if odd := [status for status in statuses if status not in ENDED]:
        raise UsageError(
            f"runs that are {odd[0]} are never cleaned up; a status is one of {', '.join(ENDED)}"
        )
    removed = 0
    if max_age_days is not None:
        for page in ended_before(storage, storage.now() - max_age_days * DAY_S, statuses):
            removed += storage.delete(page if archive is None else archive(page))
    if keep is not None:
        for page in ended_before(storage, None, statuses):
            removed += _trim_page(storage, page, keep, archive)
    # Also where nothing was removed: an earlier clean-up may have been interrupted just before this.
    storage.compact()
    return removed


def ended_before(storage: Storage, at: float | None, statuses: Sequence[Status]) -> Iterator[list[Entry]]:
    """Runs that ended before ``at`` (unix seconds; None: any), newest first, a page at a time."""
    return storage.pages(Query(statuses=tuple(statuses), updated_before=at, limit=PAGE))


def _trim_page(storage: Storage, page: Sequence[Entry], keep: int, archive: Archive | None) -> int:
    if archive is not None:
        page = [entry for entry in page if _trimmed_rows(storage, entry, keep)]
        page = archive(page) if page else []
    return sum(trim_run(storage, entry, keep) for entry in page)


def trim_run(storage: Storage, entry: Entry, keep: int) -> int:
    """Take the texts of a run's older iterations away; the number of checkpoints removed.

    A run that is damaged or of a newer format, or that somebody has claimed or deleted since, is left as it
    is.
    """
    # Newest first: whatever interrupts it, a checkpoint that is still there has all that it builds on.
    return sum(storage.trim(row) or 0 for row in reversed(_trimmed_rows(storage, entry, keep)))


def _trimmed_rows(storage: Storage, entry: Entry, keep: int) -> list[Row]:
    """The rows to put in place of others, oldest first."""
    if entry.last < keep:  # so few records cannot hold more checkpoints
        return []
    try:
        pairs = list(read_rows(storage, entry.chain_id))
    except (DataError, UnknownChainError):
        return []
    rows = [row for row, _ in pairs]
    found = trims(entry.chain_id, [records for _, records in pairs], keep)
    return [_row(entry, rows, one) for one in found]


def _row(entry: Entry, rows: Sequence[Row], trim: Trim) -> Row:
    first, last = rows[trim.first], rows[trim.last]
    frame = encode(
        trim.records,
        chain_id=entry.chain_id,
        first=first.first,
        token=entry.token,
        prev=link_of(rows[trim.first - 1].frame) if trim.first else 0,
        link=link_of(last.frame),
    )
    return Row(
        chain_id=entry.chain_id,
        first=first.first,
        last=last.last,
        token=entry.token,
        at=last.at,
        checkpoints=sum(isinstance(one, Reached) and not one.trimmed for one in trim.records),
        frame=frame,
        raw=raw_bytes(frame),
    )
