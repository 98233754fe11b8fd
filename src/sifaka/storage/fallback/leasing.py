"""Who holds which run, while the leases of some are kept in a journal (floor 3).

Leases in the journal are by this machine's clock, those in the primary by the primary's; who asks is told all
of them by the primary's, which is taken to go on as it differed from ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from sifaka.errors import StoreUnreachableError
from sifaka.storage.base import Entry, Renewal
from sifaka.storage.fallback.standby import Standby

__all__ = ["Leasing"]

SEEN_MAX = 10_000
"""So many runs are remembered to be the primary's."""


class Leasing:
    """The entries and leases of a store with a fallback."""

    def __init__(self, standby: Standby) -> None:
        self._standby = standby
        self._seen: dict[str, Entry] = {}
        self._skew = 0.0

    def now(self) -> float:
        """The primary's clock, in unix seconds; while it is away, this machine's, as it differed from it."""
        there = self._standby.ask(self._standby.primary.now, lambda: None)
        here = self._standby.journal.now()
        if there is not None:
            self._skew = there - here
        return here + self._skew

    def entry(self, chain_id: str) -> Entry | None:
        """The run's entry, or None. Raises StoreUnreachableError where that cannot be known."""
        standby = self._standby
        entry = standby.in_journal(chain_id, is_there=standby.is_there())
        if entry is not None:
            return self.as_told(entry)
        if standby.is_there():
            try:
                return self._remember(chain_id, self._standby.primary.entry(chain_id))
            except StoreUnreachableError as error:
                standby.leave(error)
        held = standby.held.get(chain_id)
        if held is None and chain_id in self._seen:
            raise standby.unreachable(chain_id, "its records are in the primary")
        return held

    def as_told(self, entry: Entry) -> Entry:
        """The journal's leases are by this machine's clock."""
        return msgspec.structs.replace(
            entry, lease_until=entry.lease_until + self._skew if entry.owner else 0.0
        )

    def _remember(self, chain_id: str, entry: Entry | None) -> Entry | None:
        """Which runs are the primary's, and how they were when they were claimed."""
        self._seen.pop(chain_id, None)
        if entry is not None:
            self._seen[chain_id] = entry
            if len(self._seen) > SEEN_MAX:
                with suppress(KeyError, RuntimeError):  # another thread was quicker
                    del self._seen[next(iter(self._seen))]
        return entry

    def claim(self, chain_id: str, token: int, owner: bytes, until: float) -> bool:
        """Make ``owner`` the owner under ``token + 1``, if the token still is ``token``."""
        standby = self._standby
        is_there = standby.is_there()
        with standby.lock:
            entry = standby.in_journal(chain_id, is_there=is_there)
            if entry is not None:
                return self._claim_here(entry, token, owner, until)
        if not standby.is_there():
            raise standby.unreachable(chain_id, "it cannot be claimed there")
        try:
            if not self._standby.primary.claim(chain_id, token, owner, until):
                return False
            seen = self._seen.get(chain_id)
            if seen is None or seen.token != token:
                seen = self._standby.primary.entry(chain_id)
        except StoreUnreachableError as error:
            standby.leave(error)
            raise
        if seen is not None and owner:
            held = msgspec.structs.replace(seen, token=token + 1, owner=owner, lease_until=until)
            standby.held[chain_id] = held
        return True

    def _claim_here(self, entry: Entry, token: int, owner: bytes, until: float) -> bool:
        chain_id = entry.chain_id
        if self._standby.away is not None and self.first_here(chain_id):
            raise self._standby.unreachable(chain_id, "only its newest records are in the fallback journal")
        if not self._standby.journal.claim(chain_id, token, owner, until - self._skew):
            return False
        found = self._standby.journal.entry(chain_id)
        if found is not None:
            self._standby.held[chain_id] = found
            self._standby.here.add(chain_id)
        return True

    def first_here(self, chain_id: str) -> int:
        """The first record of a run that the journal has."""
        return min((row.first for row in self._standby.journal.rows(chain_id)), default=0)

    def renew(self, renewals: Sequence[Renewal]) -> list[bool]:
        """Renew leases, or give them back, each where its run is now.

        Raises StoreUnreachableError where one of them is the primary's, which is away.
        """
        standby = self._standby
        is_there = standby.is_there()
        with standby.lock:
            answers = [self._renew_here(one) for one in renewals]
        left = [one for one, answer in zip(renewals, answers, strict=True) if answer is None]
        if left:
            if not is_there:
                raise standby.unreachable(left[0].chain_id, "its lease cannot be renewed")
            try:
                granted = iter(self._standby.primary.renew(left))
            except StoreUnreachableError as error:
                standby.leave(error)
                raise
            answers = [next(granted) if answer is None else answer for answer in answers]
        told = [bool(answer) for answer in answers]
        for one, yes in zip(renewals, told, strict=True):
            self._was_renewed(one, yes=yes)
        return told

    def _renew_here(self, one: Renewal) -> bool | None:
        """None where the run is not in the journal."""
        if one.chain_id in self._standby.halted:
            return False
        if one.chain_id not in self._standby.here and self._standby.journal.entry(one.chain_id) is None:
            return None
        until = one.until - self._skew if one.owner else one.until
        return self._standby.journal.renew([msgspec.structs.replace(one, until=until)])[0]

    def _was_renewed(self, one: Renewal, *, yes: bool) -> None:
        held = self._standby.held.get(one.chain_id)
        if held is None or held.token != one.token:
            return
        if yes and one.owner:
            self._standby.held[one.chain_id] = msgspec.structs.replace(held, lease_until=one.until)
        else:
            del self._standby.held[one.chain_id]
            self._standby.here.discard(one.chain_id)

    def forget(self, chain_id: str) -> None:
        """The run is deleted."""
        self._seen.pop(chain_id, None)
        self._standby.held.pop(chain_id, None)
