"""Watches that cost almost nothing: how long the event loop was blocked, how much memory is held."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import TracebackType
from typing import Self

_BEAT_S = 0.001


class LoopWatch:
    """Records by how much a 1 ms heartbeat came late: the longest time the event loop answered nobody.

    ``async with LoopWatch() as watch: ...``, then read ``watch.latest_s``, the largest lateness in
    seconds, and ``watch.beats``. A block that begins in mid-beat is seen up to 1 ms too short. What
    other processes take of the cores counts too: compare with an idle loop of the same run.
    """

    def __init__(self) -> None:
        self.latest_s = 0.0
        self.beats = 0
        self._task: asyncio.Task[None] | None = None

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _BEAT_S
            try:
                await asyncio.sleep(_BEAT_S)
            finally:
                # Also at the end: a block that lasts until the watch is stopped has no later beat.
                self.latest_s = max(self.latest_s, loop.time() - due)
                self.beats += 1

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._beat())
        await asyncio.sleep(0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def resident_bytes() -> int:
    """Memory this process holds in RAM now; 0 where the system does not say (no /proc)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_bytes() -> int:
    """The most memory this process has held in RAM so far; 0 where the system does not say.

    Not ``ru_maxrss``: that outlives exec, and so begins with what the process that started this one held.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
