"""The fencing token: who lost a run can write, renew and remove nothing more (floor 8)."""

from __future__ import annotations

from sifaka.storage.base import Change, Renewal, Write
from sifaka.testing.contract.checks import Opener, Theme, expect, expect_equal
from sifaka.testing.contract.runs import OWNER, START, at_once, entry_of, opening, put, row, shown, started

__all__ = ["fencing"]

fencing = Theme("fencing")


@fencing.check
def an_append_under_an_old_token_is_refused(store: Opener) -> None:
    """Once a run was claimed, its old owner's append is refused and changes nothing."""
    storage = store()
    started(storage)
    expect(store().claim("a", 1, b"new", START + 90), "a run can be claimed under its token")
    before = shown(storage, "a")
    late = Write(row("a", 1), Change("done", START + 5, "late", release=True))
    expect_equal(storage.write([late]), [False], "an old token writes nothing")
    expect_equal(at_once(storage, [late]), [False], "an old token writes nothing")
    expect_equal(shown(storage, "a"), before, "a refused append changes nothing")
    put(storage, Write(row("a", 1, token=2)))


@fencing.check
def a_token_of_the_future_is_refused(store: Opener) -> None:
    """Only the current token writes: a higher one is no better than an old one."""
    storage = store()
    started(storage)
    before = shown(storage, "a")
    for token in (0, 2, 3, 1_000_000):
        expect_equal(storage.write([Write(row("a", 1, token=token))]), [False], f"{token} is not the token")
    expect_equal(shown(storage, "a"), before, "a refused append changes nothing")


@fencing.check
def each_claim_fences_the_one_before(store: Opener) -> None:
    """Of many owners one after another only the newest writes; rows keep their writers' tokens."""
    storage = store()
    started(storage)
    for token in range(1, 8):
        expect(storage.claim("a", token, b"owner", START), "a run can be claimed under its token")
        old, new = row("a", token, token=token), row("a", token, token=token + 1)
        accepted = storage.write([Write(old)]) + storage.write([Write(new)])
        expect_equal(accepted, [False, True], f"after claim {token} its owner writes, and no other")
    tokens = [one.token for one in store().rows("a")]
    expect_equal(tokens, list(range(1, 9)), "each row names the token it was written under")


@fencing.check
def a_fenced_write_in_a_batch_does_not_harm_the_others(store: Opener) -> None:
    """One commit of three runs, one of which was claimed: the two others stand."""
    storage = store()
    put(storage, *(opening(name) for name in "abc"))
    expect(storage.claim("b", 1, b"new", START + 90), "a run can be claimed under its token")
    accepted = storage.write([Write(row(name, 1)) for name in "abc"])
    expect_equal(accepted, [True, False, True], "only the run that was claimed refuses")
    lasts = [entry_of(storage, name).last for name in "abc"]
    expect_equal(lasts, [1, 0, 1], "what was accepted stands, what was refused does not")


@fencing.check
def an_old_token_neither_renews_nor_gives_back(store: Opener) -> None:
    """After a takeover the old owner can touch the new one's lease in no way."""
    storage = store()
    started(storage)
    expect(storage.claim("a", 1, b"new", START + 90), "a run can be claimed under its token")
    before = shown(storage, "a")
    renewals = [Renewal("a", 1, OWNER, START + 500), Renewal("a", 1), Renewal("a", 1, b"new", START + 500)]
    expect_equal(storage.renew(renewals), [False] * 3, "an old token renews nothing and gives nothing back")
    expect_equal(shown(storage, "a"), before, "what was refused changes nothing")


@fencing.check
def an_old_token_removes_nothing(store: Opener) -> None:
    """A run that was claimed since it was listed is neither deleted nor trimmed."""
    storage = store()
    stale = started(storage, rows=4)
    expect(storage.claim("a", 1, b"new", START + 90), "a run can be claimed under its token")
    before = shown(storage, "a")
    expect_equal(storage.delete([stale]), 0, "a run that somebody has claimed since is spared")
    expect_equal(storage.trim(row("a", 0, 1, checkpoints=0)), None, "an old token trims nothing")
    expect_equal(shown(storage, "a"), before, "what was refused changes nothing")


@fencing.check
def a_deleted_run_can_be_begun_anew_and_is_another(store: Opener) -> None:
    """After a deletion the id is free; what the old run had is in no way part of the new one."""
    storage = store()
    entry = started(storage, rows=3, label="old", group="old")
    storage.delete([entry])
    expect_equal(storage.write([Write(row("a", 3))]), [False], "a deleted run takes no append")
    put(storage, opening("a", first=0, label="new"))
    again = entry_of(store(), "a")
    told = (again.label, again.group, again.last)
    expect_equal(told, ("new", "", 0), "the new run is as it was opened")
    expect_equal(len(list(store().rows("a"))), 1, "no row of the old run is part of the new one")
