"""What a check of the contract is: one promise, a function of a store that can be opened again (floor 8).

A check breaks with an AssertionError that says which promise was broken, and with which values. Nothing here
knows of any test runner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from sifaka.clock import Clock
from sifaka.storage.base import Storage

__all__ = ["Check", "Opener", "Theme", "expect", "expect_equal"]

_T = TypeVar("_T")
SHOWN_CHARS = 500
"""So much of a value is shown in a message, at most."""


class Opener(Protocol):
    """Opens one and the same store; each call may give another handle on it.

    ``clock`` is for stores whose time is not their server's.
    """

    def __call__(self, clock: Clock | None = None, /) -> Storage:
        """A handle on the store."""
        ...


class Check:
    """One promise: called with the opener of a store that holds nothing yet, it returns or raises.

    ``promise`` is a sentence, ``str()`` of it is ``theme: name``.
    """

    def __init__(self, theme: str, work: Callable[[Opener], None]) -> None:
        self.theme = theme
        self.name = work.__name__
        self.promise = (work.__doc__ or "").strip().partition("\n")[0]
        self._work = work

    def __call__(self, store: Opener) -> None:
        """Check the promise; all handles are closed at the end. Raises AssertionError where it is broken."""
        handles = _Handles(store)
        try:
            self._work(handles)
        finally:
            handles.close()

    def __str__(self) -> str:
        return f"{self.theme}: {self.name}"

    __repr__ = __str__


class Theme:
    """The checks of one theme, in the order in which they were written."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._checks: list[Check] = []

    def check(self, work: Callable[[Opener], None]) -> Check:
        """Add a check; its docstring's first line is the promise."""
        self._checks.append(Check(self.name, work))
        return self._checks[-1]

    def __iter__(self) -> Iterator[Check]:
        return iter(self._checks)


class _Handles:
    """An opener that remembers what it has opened."""

    def __init__(self, store: Opener) -> None:
        self._store = store
        self._opened: list[Storage] = []

    def __call__(self, clock: Clock | None = None, /) -> Storage:
        self._opened.append(self._store(clock))
        return self._opened[-1]

    def close(self) -> None:
        for one in self._opened:
            one.close()


def expect(condition: object, promise: str, **values: object) -> None:
    """Raise AssertionError with the promise and the values unless ``condition`` holds."""
    if not condition:
        told = ", ".join(f"{name}={_shown(value)}" for name, value in values.items())
        raise AssertionError(f"{promise} ({told})" if told else promise)


def expect_equal(found: _T, wanted: _T, promise: str) -> None:
    """Raise AssertionError with both values unless they are equal."""
    if found != wanted:
        raise AssertionError(f"{promise}: expected {_shown(wanted)}, found {_shown(found)}")


def _shown(value: object) -> str:
    if isinstance(value, (bytes, str)) and len(value) > SHOWN_CHARS:
        return f"{type(value).__name__} of length {len(value)}"
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}... ({len(text)} characters)"
