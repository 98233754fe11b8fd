"""The public test kit: the world outside a chain, made scriptable (floor 8).

* :class:`ProviderDouble`: the other end of the network, a real HTTP server on this machine that
  speaks the providers' formats, counts what it bills, and fails as it is told.
* :class:`FakeClock`: time that passes only when it is told to.
* :class:`FaultyStorage`: a store that fails before or after the write it is told to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sifaka.testing.clock import FakeClock
    from sifaka.testing.provider import Answer, Cut, Hang, ProviderDouble, Refuse
    from sifaka.testing.storage import FaultyStorage

__all__ = ["Answer", "Cut", "FakeClock", "FaultyStorage", "Hang", "ProviderDouble", "Refuse"]

_HOMES = {
    **dict.fromkeys(("Answer", "Cut", "Hang", "ProviderDouble", "Refuse"), "sifaka.testing.provider"),
    "FakeClock": "sifaka.testing.clock",
    "FaultyStorage": "sifaka.testing.storage",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
