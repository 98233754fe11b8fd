"""Virtual time: what takes hours takes no time, and nothing depends on the machine (floor 8)."""

from __future__ import annotations

from collections.abc import Generator

__all__ = ["Pause", "VirtualClock"]


class Pause:
    """What an async part of a simulated run waits on: the simulation wakes it when the time has come."""

    def __init__(self, seconds: float) -> None:
        self.seconds = _not_negative(seconds)

    def __await__(self) -> Generator[Pause, None, None]:
        yield self


class VirtualClock:
    """A clock that only a :class:`~sifaka.testing.Simulation` moves. ``start`` is in unix seconds.

    Within a part that is called, :meth:`sleep` makes the call longer: the others go on meanwhile, and its
    answer arrives that much later. Outside of a call there is nobody else, and it moves the time.
    """

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start
        self._start = start
        self._ahead: float | None = None

    def time(self) -> float:
        """Seconds since the Unix epoch."""
        return self._now + (self._ahead or 0.0)

    def monotonic(self) -> float:
        """Seconds since this clock was made."""
        return self._now - self._start + (self._ahead or 0.0)

    def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass for the caller. Raises ValueError for a negative number."""
        if self._ahead is None:
            self._now += _not_negative(seconds)
        else:
            self._ahead += _not_negative(seconds)

    async def asleep(self, seconds: float) -> None:
        """As :meth:`sleep`; the other runs of the simulation go on meanwhile."""
        await Pause(seconds)

    # What the simulation does with it ---------------------------------------------------------

    def move_to(self, time: float) -> None:
        """Let it be ``time`` (unix seconds), unless it is later already."""
        self._now = max(self._now, time)

    def begin_call(self) -> None:
        """From here on sleeping makes one call longer."""
        self._ahead = 0.0

    def end_call(self) -> float:
        """How many seconds the call has slept."""
        ahead, self._ahead = self._ahead or 0.0, None
        return ahead


def _not_negative(seconds: float) -> float:
    if not seconds >= 0:
        raise ValueError(f"time goes on by 0 or more seconds, not by {seconds}")
    return seconds
