"""The store in a Redis server: fence and compare-and-append are one script, run there in one step (floor 3).

A batch of appends is one round trip and one commit of the server. What survives is the server's settings'
affair: with ``appendonly yes`` and ``appendfsync always`` an acknowledged append survives a power cut
("power"), with another ``appendfsync`` the death of the server ("server"), without an append-only file only
the death of our process ("process"); a server that may evict our keys keeps nothing ("none") and is refused
unless that is asked for. Replicas follow with a delay, so a failover may lose what was acknowledged just
before; the fence holds on whatever history the new primary has.

Prompts and texts are stored in plain text; who can read the server can read them. The counts that
``measure`` gives are kept in step by the scripts: they drift where somebody removes keys by hand.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from sifaka.clock import Clock, SystemClock
from sifaka.errors import FormatError, StorageError, StoreUnreachableError, UsageError
from sifaka.locks import ProcessLock
from sifaka.storage.base import Cell, Durability, Entry, Query, Renewal, Row, Storage, Write
from sifaka.storage.durability import as_durability, refuse_weaker, warn_of_weaker
from sifaka.storage.redis import scripts
from sifaka.storage.redis.link import Link, read_address
from sifaka.storage.redis.measuring import measure
from sifaka.storage.redis.packing import (
    cursor,
    number,
    pack_query,
    pack_row,
    pack_write,
    raw,
    read_entry,
    read_row,
    text,
)
from sifaka.storage.redis.settings import QUESTIONS, Settings, read_settings

__all__ = ["RedisStorage"]

LOOK_S = 30.0
"""How often the server's clock and settings are looked at, in seconds."""
RUNS_A_DELETE = 50
"""How many runs are deleted in one step: the server serves others between two of them."""
SEEN_A_STEP = 1_000
"""How many runs a listing looks at in one step."""
COMPACT_S = 60.0
"""How long a compaction is waited for; the server goes on with it by itself."""


class RedisStorage(Storage):
    """A store in the Redis server at ``url``, under keys that begin with ``{namespace}:``.

    ``redis://``, ``rediss://`` and ``unix://`` addresses; ``namespace`` and ``durability`` may stand in the
    address, as ``?namespace=…&durability=server``. ``durability`` is the least that the server's settings
    must keep, or everything is refused; without it there is a DurabilityWarning below "power". ``timeout_s``
    is how long an answer may take, ``patience_s`` how long an append is tried again when the server is away
    (both in seconds).

    It connects when first used; several processes and threads may use one server at once. Raises
    UsageError for an address that is none, MissingExtraError without the library, StoreUnreachableError
    for what may pass, StorageError for what somebody has to mend (a wrong password among it), FormatError
    for a newer schema.

    Leases go by the server's clock, which is looked at every 30 s and carried on by this machine's elapsed
    time in between: off by half a round trip, and by what two clocks drift in 30 s (under 3 ms). A ``clock``
    that is given takes the server's clock's place.
    """

    local = False

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        namespace: str = "sifaka",
        durability: Durability | None = None,
        create: bool = True,
        clock: Clock | None = None,
        timeout_s: float = 5.0,
        patience_s: float = 20.0,
    ) -> None:
        address = read_address(url)
        wanted = address.asked.get("durability", durability)
        self.asked: Durability | None = None if wanted is None else as_durability(wanted)
        self.namespace = _checked(address.asked.get("namespace", namespace))
        self.url = address.shown
        self.patience_s = patience_s
        self._create = create
        self.clock = clock or SystemClock()
        self._is_told_time = clock is not None and not isinstance(clock, SystemClock)
        self._link = Link(address, timeout_s)
        self._prefix = raw(f"{{{self.namespace}}}:")
        self._format_key = self._key(b"format")
        self._look_lock = ProcessLock()
        self._look_at = 0.0
        self._settings: Settings | None = None
        self._accepted: Settings | None = None
        self._ahead_s = 0.0
        self._has_warned = False

    def _key(self, kind: bytes, chain_id: str = "") -> bytes:
        return self._prefix + kind + raw(chain_id)

    # Looking at the server -----------------------------------------------------------------

    def now(self) -> float:
        """The server's clock, in unix seconds; the one that was given, where one was."""
        if self._is_told_time:
            return self.clock.time()
        try:
            self._look_when_due()
        except (StorageError, FormatError):
            if self._settings is None:
                raise  # else: away just now, and time goes on all the same
        return self.clock.monotonic() + self._ahead_s

    @property
    def durability(self) -> Durability:
        """What an acknowledged append survives, by the server's settings; this connects.

        While the server was never reached: what was asked for, since with less it will be refused.
        """
        try:
            return self._look_when_due().kept
        except (StorageError, FormatError):
            settings = self._settings
        return settings.kept if settings else self.asked or "none"

    def _look_when_due(self) -> Settings:
        with self._look_lock:
            settings = self._settings
            if settings is None or self.clock.monotonic() >= self._look_at:
                self._settings = settings = self._look()
                self._look_at = self.clock.monotonic() + LOOK_S
        return settings

    def _look(self) -> Settings:
        """One round trip for the server's clock, the schema's version and the settings."""
        start, end, answers = self._link.look(self._ask_settings)
        (seconds, micros), found, *told = answers
        self._ahead_s = seconds + micros / 1e6 - (start + end) / 2
        if found is not None and int(found) > scripts.FORMAT:
            raise FormatError(f"the store {self.url}", int(found), scripts.FORMAT)
        if found is None and not self._create:
            raise StoreUnreachableError(self.url, f"there is no store in its namespace {self.namespace!r}")
        return read_settings(told)

    def _ask_settings(self, client: Any) -> tuple[float, float, list[Any]]:
        pipe = client.pipeline(transaction=False)
        pipe.time()
        pipe.get(self._format_key)
        for command, name in QUESTIONS:
            pipe.execute_command(command, name)
        start = self.clock.monotonic()
        answers = pipe.execute(raise_on_error=False)
        for answer in answers[:2]:  # the settings may be a secret, these must not
            if isinstance(answer, Exception):
                raise answer
        return start, self.clock.monotonic(), answers

    def _ready(self) -> Link:
        """The way to a server that keeps what was asked for."""
        settings = self._look_when_due()
        if settings is not self._accepted:
            refuse_weaker(self.url, settings.kept, self.asked or "process", settings.cure)
            self._accepted = settings
            if self.asked is None and not self._has_warned:
                self._has_warned = True
                warn_of_weaker(self.url, settings.kept, settings.cure)
        return self._link

    def reset(self) -> None:
        """Drop idle connections, and look at the server anew: it may be another one now."""
        self._look_at = 0.0
        self._link.drop()

    def close(self) -> None:
        """Close the connections; the next use opens them again."""
        self._link.drop()

    # Hooks ---------------------------------------------------------------------------------

    def _run(self, script: scripts.Script, args: Sequence[bytes]) -> Any:
        return self._ready().run(script, self._format_key, args)

    def write(self, writes: Sequence[Write]) -> list[bool]:
        """Append all in one commit; False where one was refused."""
        args = [part for write in writes for part in pack_write(write)]
        return [accepted == 1 for accepted in self._run(scripts.write, args)]

    def rows(
        self, chain_id: str, first: int = 0, last: int | None = None, *, newest_first: bool = False
    ) -> Iterator[Row]:
        """The rows that hold any of the records ``first`` to ``last``, read a page at a time."""
        key = self._key(b"log:", chain_id)
        read = self._rows_before if newest_first else self._rows_from
        for member in read(key, first, last):
            row = read_row(chain_id, member)
            if row.last >= first and (last is None or row.first <= last):
                yield row

    def _rows_from(self, key: bytes, first: int, last: int | None) -> Iterator[bytes]:
        """The members from the one that holds record ``first``, to one behind ``last`` at the most."""
        page = 8 if last is None else max(1, min(8, last - first + 1))
        while True:
            found = self._page(key, first, page)
            yield from found
            if len(found) < page:
                return
            newest = read_row("", found[-1])
            if last is not None and newest.last >= last:
                return
            first, page = newest.last + 1, 64

    def _page(self, key: bytes, first: int, page: int) -> list[bytes]:
        link = self._ready()
        return link.look(lambda client: client.zrangebyscore(key, first, "+inf", start=0, num=page))

    def _rows_before(self, key: bytes, first: int, last: int | None) -> Iterator[bytes]:
        """The member that holds record ``last``, and those before it."""
        page, before = 8, "+inf"
        if last is not None:
            yield from self._page(key, last, 1)
            before = f"({last}"
        while True:
            found = self._page_before(key, before, first, page)
            yield from found
            if len(found) < page:
                return
            before, page = f"({read_row('', found[-1]).last}", 64

    def _page_before(self, key: bytes, before: str, first: int, page: int) -> list[bytes]:
        link = self._ready()
        return link.look(lambda client: client.zrevrangebyscore(key, before, first, start=0, num=page))

    def entry(self, chain_id: str) -> Entry | None:
        """The run's entry, or None."""
        key = self._key(b"run:", chain_id)
        found = self._ready().look(lambda client: client.hmget(key, scripts.ENTRY_FIELDS))
        return None if found[0] is None else read_entry(chain_id, found)

    def entries(self, query: Query) -> list[Entry]:
        """The entries that ``query`` selects, newest first."""
        found: list[Entry] = []
        after = None if query.after is None else cursor(query.after)
        while len(found) < query.limit:
            packed = pack_query(query, after, query.limit - len(found), SEEN_A_STEP)
            at, chain_id, *pairs = self._ready().run_reader(scripts.entries, self._format_key, packed)
            found += (
                read_entry(text(one), fields) for one, fields in zip(pairs[::2], pairs[1::2], strict=True)
            )
            if not at:
                break
            after = at, chain_id
        return found

    def claim(self, chain_id: str, token: int, owner: bytes, until: float) -> bool:
        """Make ``owner`` the owner under ``token + 1``, if the token still is ``token``."""
        args = (raw(chain_id), b"%d" % token, owner, number(until), b"%d" % (token + 1))
        return bool(self._run(scripts.claim, args))

    def renew(self, renewals: Sequence[Renewal]) -> list[bool]:
        """Renew leases, or give them back, in one commit."""
        args: list[bytes] = []
        for one in renewals:
            args += (raw(one.chain_id), b"%d" % one.token, one.owner, number(one.until))
        return [kept == 1 for kept in self._run(scripts.renew, args)]

    def delete(self, entries: Sequence[Entry]) -> int:
        """Remove runs with all their records; the number of checkpoints removed."""
        removed = 0
        for start in range(0, len(entries), RUNS_A_DELETE):
            args: list[bytes] = []
            for one in entries[start : start + RUNS_A_DELETE]:
                args += (raw(one.chain_id), b"%d" % one.token)
            removed += self._run(scripts.delete, args)
        return removed

    def trim(self, row: Row) -> int | None:
        """Put ``row`` in place of the rows in its range; the number of checkpoints removed."""
        place = (b"%d" % one for one in (row.token, row.first, row.last))
        args = (raw(row.chain_id), *place, pack_row(row))
        removed: int | None = self._run(scripts.trim, args)
        return removed

    def cells(self, names: Sequence[str]) -> list[Cell]:
        """The cells of these names, in that order."""
        if not names:
            return []
        key, fields = self._key(b"cells"), [raw(name) for name in names]
        found = self._ready().look(lambda client: client.hmget(key, fields))
        return [Cell() if one is None else Cell(one[8:], *scripts.VERSION.unpack_from(one)) for one in found]

    def swap(self, name: str, value: bytes, version: int) -> bool:
        """Set a cell whose version still is ``version``."""
        if version < 0:
            return False
        pack = scripts.VERSION.pack
        return bool(self._run(scripts.swap, (raw(name), pack(version), pack(version + 1) + value)))

    def cell_names(self, prefix: str = "", after: str = "", limit: int = 500) -> list[str]:
        """The names of cells that begin with ``prefix`` and lie behind ``after``."""
        key, begin, behind = self._key(b"cells:names"), raw(prefix), raw(after)
        # No UTF-8 holds the byte FF, so all that begins with the prefix lies before that.
        low = b"(" + behind if after and behind >= begin else b"[" + begin
        high = b"(" + begin + b"\xff"
        link = self._ready()
        found = link.look(lambda client: client.zrangebylex(key, low, high, start=0, num=limit))
        return [text(name) for name in found]

    # The server as a whole -----------------------------------------------------------------

    def measure(self) -> dict[str, Any]:
        """Counts and sizes of what is kept; ``storage_size_bytes`` is an estimate of the server's memory."""
        return measure(self._ready(), self._prefix)

    def complaints(self) -> list[str]:
        """What in the server's settings does not keep the promises, a sentence each with the way out."""
        self._look_at = 0.0  # as they are now
        settings = self._look_when_due()
        return settings.complaints(
            self.url, self.asked or "power", has_password=self._link.address.has_password
        )

    def compact(self) -> None:
        """Have the server write its files anew, so that deleted texts are in none of them.

        It takes as long as the whole server's content needs; a minute of that is waited for. Raises
        StorageError where the server forbids it, as managed ones do: their provider's backups decide then.
        """
        settings = self._look_when_due()
        if settings.has_log:
            self._write_anew("BGREWRITEAOF", "aof_rewrite_in_progress", "aof_rewrite_scheduled")
        if settings.has_snapshots:
            self._write_anew("BGSAVE SCHEDULE", "rdb_bgsave_in_progress")

    def _write_anew(self, command: str, *marks: str) -> None:
        """One that is under way already may hold what has gone since: it is waited for first."""
        give_up_at = time.monotonic() + COMPACT_S
        while True:
            self._wait_for(marks, give_up_at)
            try:
                self._link.ask(lambda client: client.execute_command(*command.split()))
                break
            except StorageError as error:
                if "in progress" not in str(error) or time.monotonic() > give_up_at:
                    raise
        self._wait_for(marks, give_up_at)

    def _wait_for(self, marks: Sequence[str], give_up_at: float) -> None:
        while time.monotonic() < give_up_at:
            told = self._link.look(lambda client: client.info("persistence"))
            if not any(told.get(mark) for mark in marks):
                return
            time.sleep(0.02)


def _checked(namespace: str) -> str:
    if not 0 < len(namespace) <= 100 or not namespace.isprintable() or {"{", "}"} & set(namespace):
        raise UsageError(
            f"a namespace is a text of 1 to 100 printable characters without braces, not {namespace!r}"
        )
    return namespace
