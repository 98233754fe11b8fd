"""Owning a run: claims, renewals in batches, giving back (floor 8)."""

from __future__ import annotations

from sifaka.storage.base import Change, Renewal, Write
from sifaka.testing.contract.checks import Opener, Theme, expect, expect_equal
from sifaka.testing.contract.runs import OWNER, START, entry_of, opening, put, row, shown, started

__all__ = ["owning"]

owning = Theme("owning")


@owning.check
def a_claim_names_the_new_owner(store: Opener) -> None:
    """A claim under the current token sets owner and lease, adds 1 to the token, and changes no more."""
    storage = store()
    before = started(storage, rows=2, label="l", status="waiting", until=START + 5)
    expect(storage.claim("a", 1, b"\0new\xff", START + 90.5), "a run can be claimed under its token")
    after = entry_of(store(), "a")
    told = (after.token, after.owner, after.lease_until)
    expect_equal(told, (2, b"\0new\xff", START + 90.5), "token, owner and lease are the claim's")
    kept = (after.status, after.until, after.label, after.last, after.opened_at, after.updated_at)
    was = (before.status, before.until, before.label, before.last, before.opened_at, before.updated_at)
    expect_equal(kept, was, "a claim changes nothing else")


@owning.check
def a_claim_under_another_token_fails(store: Opener) -> None:
    """Who does not know the current token gets nothing, and changes nothing."""
    storage = store()
    started(storage)
    before = shown(storage, "a")
    for token in (0, 2, 99):
        expect(
            not storage.claim("a", token, b"thief", START + 900), "only the current token claims", token=token
        )
    expect(not storage.claim("b", 1, b"thief", START + 900), "a run that is not there cannot be claimed")
    expect_equal(shown(storage, "a", "b"), [*before, (None, [])], "a claim that failed changes nothing")


@owning.check
def of_two_claims_one_succeeds(store: Opener) -> None:
    """Two that have read the same token: the second one's claim fails."""
    one, two = store(), store()
    started(one)
    token = entry_of(two, "a").token
    answers = [one.claim("a", token, b"one", START + 90), two.claim("a", token, b"two", START + 90)]
    expect_equal(answers, [True, False], "a token can be used for one claim only")
    expect_equal(entry_of(two, "a").owner, b"one", "the owner is who claimed first")


@owning.check
def a_renewal_moves_the_end_of_the_lease_and_no_more(store: Opener) -> None:
    """The owner renews under its token; owner, token and all the rest stay."""
    storage = store()
    started(storage)
    for until in (START + 120.75, START + 30):
        expect_equal(storage.renew([Renewal("a", 1, OWNER, until)]), [True], "the owner renews its lease")
        entry = entry_of(store(), "a")
        told = (entry.owner, entry.token, entry.lease_until, entry.updated_at)
        expect_equal(told, (OWNER, 1, until, START), "only the lease's end has moved")


@owning.check
def a_lease_is_renewed_by_its_owner_only(store: Opener) -> None:
    """The right token with another owner's name renews nothing."""
    storage = store()
    started(storage)
    before = shown(storage, "a")
    for owner in (b"another", OWNER + b"\0", OWNER[:-1], OWNER.upper()):
        renewed = storage.renew([Renewal("a", 1, owner, START + 500)])
        expect_equal(renewed, [False], f"{owner!r} does not own the run")
    expect_equal(storage.renew([Renewal("b", 1, OWNER, START + 500)]), [False], "there is no such run")
    expect_equal(shown(storage, "a"), before, "a refused renewal changes nothing")


@owning.check
def a_lease_that_was_given_back_is_free_and_stays_so(store: Opener) -> None:
    """Giving back empties owner and lease; a renewal that comes late does not take the run again."""
    storage = store()
    started(storage)
    expect_equal(storage.renew([Renewal("a", 1)]), [True], "who has the token gives the lease back")
    expect_equal(storage.renew([Renewal("a", 1, OWNER, START + 500)]), [False], "a late renewal is refused")
    entry = entry_of(store(), "a")
    told = (entry.owner, entry.lease_until, entry.token)
    expect_equal(told, (b"", 0.0, 1), "the lease was given back, under the same token")
    put(storage, Write(row("a", 1)))
    expect(storage.claim("a", 1, b"next", START + 60), "a run that is free can be claimed")


@owning.check
def a_lease_that_an_append_gave_back_is_not_renewed(store: Opener) -> None:
    """A renewal that was under way when the run ended does not make it owned again."""
    storage = store()
    started(storage)
    put(storage, Write(row("a", 1), Change("done", START + 1, release=True)))
    expect_equal(storage.renew([Renewal("a", 1, OWNER, START + 500)]), [False], "a late renewal is refused")
    expect_equal(entry_of(storage, "a").owner, b"", "nobody owns a run that was given back")


@owning.check
def renewals_stand_or_fall_each_by_itself(store: Opener) -> None:
    """A batch of renewals is answered one by one, in order, in one commit."""
    storage = store()
    ids = [f"run {n}" for n in range(40)]
    put(storage, *(opening(name) for name in ids))
    for name in ids[1::4]:
        expect(storage.claim(name, 1, b"thief", START + 70), "a run can be claimed under its token")
    batch = [Renewal(name, 1, OWNER, START + 100 + n) for n, name in enumerate(ids)]
    batch[2::4] = [Renewal(one.chain_id, 1) for one in batch[2::4]]
    batch[3::4] = [Renewal(f"no {one.chain_id}", 1, OWNER, START) for one in batch[3::4]]
    expect_equal(storage.renew(batch), [True, False, True, False] * 10, "each renewal is answered by itself")
    for n, name in enumerate(ids):
        entry = entry_of(storage, name)
        wanted = ((OWNER, START + 100 + n), (b"thief", START + 70), (b"", 0.0), (OWNER, START + 60))[n % 4]
        expect_equal((entry.owner, entry.lease_until), wanted, f"the lease of {name!r} is as it was answered")
    expect_equal(storage.renew([]), [], "nothing to renew is no error")
