"""Files as a power cut may leave them, made from a trace of the calls that wrote them (floor 8).

What a sync that ended has covered is there. Each write after it is kept, lost or torn by sectors, in any
combination; of creations, renames and removals that no sync of their folder has covered, a beginning is
kept, as file systems with a journal do. What a *failed* sync covered may be lost for ever: later syncs
do not bring it back, because the kernel has marked those pages clean.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from shim import ENTRY

__all__ = ["Call", "Cut", "Machine", "cuts", "put", "read_trace", "without_syncs"]

SECTOR = 512


class Call(NamedTuple):
    """A call of the trace. ``op`` is one letter.

    W write, T truncate, A allocate, C create, R rename (``data`` is the new name), L link, U unlink,
    S a sync begins, E it ended, F it failed, M a marker (in ``path``).
    """

    op: str
    path: str
    process: int
    offset: int
    data: bytes


class Cut(NamedTuple):
    """A power cut after ``calls`` calls: the files as they were found, and what had been marked by then."""

    calls: int
    files: dict[str, bytes]
    marks: frozenset[str]


def read_trace(path: Path) -> list[Call]:
    """The calls of a trace, in order."""
    trace = path.read_bytes()
    calls: list[Call] = []
    at = 0
    while at < len(trace):
        total, name, op, process, size, offset = ENTRY.unpack_from(trace, at)
        begin = at + ENTRY.size
        data = trace[begin + name : begin + name + size]
        calls.append(Call(chr(op), trace[begin : begin + name].decode(), process, offset, data))
        at += total
    return calls


def without_syncs(calls: Iterable[Call]) -> list[Call]:
    """The same trace, as if the program had never synced: what a test must notice."""
    return [call for call in calls if call.op not in "SEF"]


class _Pending:
    """Changes that no sync has covered yet, numbered, and where the syncs under way began."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.done = 0
        self.begun: dict[int, list[int]] = defaultdict(list)

    def begin(self, process: int) -> None:
        self.begun[process].append(self.done + len(self.calls))

    def end(self, process: int) -> list[Call]:
        """What the sync that ends now has covered; of two at once the older is taken, to be safe."""
        begun = self.begun[process]
        covered = max(0, begun.pop(0) - self.done) if begun else 0
        calls, self.calls = self.calls[:covered], self.calls[covered:]
        self.done += covered
        return calls


class _File:
    def __init__(self, image: bytes = b"") -> None:
        self.image = bytearray(image)
        self.pending = _Pending()
        self.doomed: list[Call] = []
        """What a failed sync covered: perhaps on the disk, perhaps not, whatever is synced later."""

    def end(self, process: int, *, well: bool) -> None:
        for call in self.pending.end(process):
            if call.op == "W" and not well:
                self.doomed.append(call)
                continue
            _apply(self.image, call)
            # Written again after the failure, and synced now: that is safe.
            self.doomed = [old for old in self.doomed if not _covers(call, old)]

    def after_cut(self, rng: random.Random) -> bytes:
        image = bytearray(self.image)
        for call in self.doomed:
            if rng.random() < 0.5:
                _apply(image, call)
        _survive(image, self.pending.calls, rng)
        return bytes(image)


def _covers(new: Call, old: Call) -> bool:
    if new.op == "T":
        return new.offset <= old.offset
    return new.offset <= old.offset and old.offset + len(old.data) <= new.offset + len(new.data)


def _apply(image: bytearray, call: Call) -> None:
    if call.op == "W":
        _grow(image, call.offset)
        image[call.offset : call.offset + len(call.data)] = call.data
    elif call.op == "A":
        _grow(image, call.offset)
    else:
        _grow(image, call.offset)
        del image[call.offset :]


def _grow(image: bytearray, size: int) -> None:
    if len(image) < size:
        image.extend(bytes(size - len(image)))


def _survive(image: bytearray, calls: list[Call], rng: random.Random) -> None:
    """Apply what happened to reach the disk: all, nothing, a beginning, some calls, or some sectors."""
    share = rng.choice((0.1, 0.5, 0.9, 0.99))
    kept: list[Call] = []
    match rng.choice(("nothing", "all", "a beginning", "some calls", "some sectors", "some sectors")):
        case "nothing":
            return
        case "all":
            kept = calls
        case "a beginning":
            kept = calls[: rng.randrange(len(calls) + 1)]
        case "some calls":
            kept = [call for call in calls if rng.random() < share]
        case _:
            kept = [part for call in calls for part in _torn(call, share, rng)]
    for call in kept:
        _apply(image, call)
    if rng.random() < 0.2:  # the size reached the disk, the data did not: zeros
        _grow(image, max((call.offset + len(call.data) for call in calls if call.op == "W"), default=0))


def _torn(call: Call, share: float, rng: random.Random) -> Iterator[Call]:
    """The sectors of a write that reached the disk; other changes are whole or not at all."""
    if call.op != "W":
        if rng.random() < share:
            yield call
        return
    begin, end = call.offset, call.offset + len(call.data)
    while begin < end:
        stop = min(end, (begin // SECTOR + 1) * SECTOR)
        if rng.random() < share:
            yield call._replace(offset=begin, data=call.data[begin - call.offset : stop - call.offset])
        begin = stop


class Machine:
    """The files of a machine, as its programs see them and as its disk holds them.

    ``base`` are the files that were there, and synced, before the trace. ``file_sync_keeps_name`` is what
    ext4, XFS and btrfs do beyond POSIX: syncing a new file makes its name durable too.
    """

    def __init__(
        self, base: Mapping[str, bytes] | None = None, *, file_sync_keeps_name: bool = False
    ) -> None:
        self._live = {path: _File(image) for path, image in (base or {}).items()}
        self._named = dict(self._live)
        self._folders: dict[str, _Pending] = defaultdict(_Pending)
        self._files: dict[int, _File] = {}
        self._keeps_name = file_sync_keeps_name
        self.marks: set[str] = set()

    def apply(self, call: Call) -> None:
        """Go on by one call."""
        op, path = call.op, call.path
        if op == "M":
            self.marks.add(path)
        elif op in "SEF":
            self._sync(call)
        elif op in "CRLU":
            self._name(call)
        elif not path.endswith(" (deleted)"):
            self._file(path).pending.calls.append(call)

    def _file(self, path: str) -> _File:
        if path not in self._live:
            self._live[path] = self._named[path] = _File()
        return self._live[path]

    def _sync(self, call: Call) -> None:
        file = self._live.get(call.path)
        if file is None:
            self._sync_folder(call)
        elif call.op == "S":
            file.pending.begin(call.process)
        else:
            file.end(call.process, well=call.op == "E")
            if self._keeps_name and call.op == "E":
                self._named.setdefault(call.path, file)

    def _sync_folder(self, call: Call) -> None:
        names = self._folders[call.path]
        if call.op == "S":
            names.begin(call.process)
        elif call.op == "E":
            for one in names.end(call.process):
                self._rename(self._named, one)

    def _name(self, call: Call) -> None:
        if call.op == "C":  # a file and its name are one thing to what follows
            self._files[id(call)] = self._live[call.path] = _File()
        else:
            source = self._live.get(call.path)
            if source is not None:
                self._files[id(call)] = source
            self._rename(self._live, call)
        # A rename is one change of the file system, so the sync of the folder it leads to covers it.
        where = call.data.decode() if call.op in "RL" else call.path
        self._folders[os.path.dirname(where)].calls.append(call)

    def _rename(self, names: dict[str, _File], call: Call) -> None:
        file = self._files.get(id(call))
        if call.op == "C" and file is not None:
            names[call.path] = file
        elif call.op == "U":
            names.pop(call.path, None)
        elif file is not None:
            if call.op == "R":
                names.pop(call.path, None)
            names[call.data.decode()] = file

    def cut(self, rng: random.Random) -> dict[str, bytes]:
        """The files, by path, as they may be found after a power cut now."""
        names = dict(self._named)
        for folder in self._folders.values():
            for call in folder.calls[: rng.randrange(len(folder.calls) + 1)]:
                self._rename(names, call)
        return {path: file.after_cut(rng) for path, file in names.items()}


def cuts(
    calls: list[Call],
    count: int,
    seed: int,
    *,
    base: Mapping[str, bytes] | None = None,
    file_sync_keeps_name: bool = False,
) -> Iterator[Cut]:
    """``count`` power cuts at random places of a trace, in the trace's order."""
    rng = random.Random(seed)
    places = iter(sorted(rng.randrange(len(calls) + 1) for _ in range(count)))
    machine = Machine(base, file_sync_keeps_name=file_sync_keeps_name)
    done = 0
    for place in places:
        for call in calls[done:place]:
            machine.apply(call)
        done = place
        yield Cut(place, machine.cut(rng), frozenset(machine.marks))


def put(files: Mapping[str, bytes], old: Path, new: Path) -> None:
    """Write the files of a cut, found below ``old``, below the folder ``new``."""
    for path, image in files.items():
        target = new / Path(path).relative_to(old)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(image)
