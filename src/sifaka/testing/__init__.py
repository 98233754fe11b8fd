"""The public test kit: the world outside a chain, made scriptable (floor 8).

* :class:`ProviderDouble`: the other end of the network, a real HTTP server on this machine that
  speaks the providers' formats, counts what it bills, and fails as it is told.
* :class:`FakeClock`: time that passes only when it is told to.
* :class:`FaultyStorage`: a store that fails before or after the write it is told to.
* :data:`CONTRACT`, :func:`exercise`: what every store promises, as checks for a backend of your own;
  :func:`agreement`: random operations in which it must agree with the memory.
* :class:`Simulation`: thousands of real chains on a :class:`VirtualClock`, at providers that have bad hours
  (:class:`SimulatedProvider`).
* :class:`RedisServer`, :class:`PostgresServer`, :class:`MilvusServer`: real servers on this machine, to
  be killed and restarted; :func:`missing` says what has to be installed for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sifaka.lazy import names_of

if TYPE_CHECKING:
    from sifaka.testing.agreement import agreement
    from sifaka.testing.clock import FakeClock
    from sifaka.testing.contract import CONTRACT, Opener, exercise
    from sifaka.testing.provider import Answer, Cut, Hang, Overload, ProviderDouble, Raw, Refuse, Throttle
    from sifaka.testing.servers import MilvusServer, PostgresServer, RedisServer, missing
    from sifaka.testing.simulation import (
        Climate,
        Incidents,
        Outages,
        SimulatedProvider,
        Simulation,
        TokenBucket,
        VirtualClock,
    )
    from sifaka.testing.storage import FaultyStorage

__all__ = [
    "CONTRACT",
    "Answer",
    "Climate",
    "Cut",
    "FakeClock",
    "FaultyStorage",
    "Hang",
    "Incidents",
    "MilvusServer",
    "Opener",
    "Outages",
    "Overload",
    "PostgresServer",
    "ProviderDouble",
    "Raw",
    "RedisServer",
    "Refuse",
    "SimulatedProvider",
    "Simulation",
    "Throttle",
    "TokenBucket",
    "VirtualClock",
    "agreement",
    "exercise",
    "missing",
]

_HOMES = {
    **dict.fromkeys(
        ("Answer", "Cut", "Hang", "Overload", "ProviderDouble", "Raw", "Refuse", "Throttle"),
        "sifaka.testing.provider",
    ),
    **dict.fromkeys(("CONTRACT", "Opener", "exercise"), "sifaka.testing.contract"),
    **dict.fromkeys(
        (
            "Climate",
            "Incidents",
            "Outages",
            "SimulatedProvider",
            "Simulation",
            "TokenBucket",
            "VirtualClock",
        ),
        "sifaka.testing.simulation",
    ),
    "FakeClock": "sifaka.testing.clock",
    "agreement": "sifaka.testing.agreement",
    "FaultyStorage": "sifaka.testing.storage",
    **dict.fromkeys(("MilvusServer", "PostgresServer", "RedisServer", "missing"), "sifaka.testing.servers"),
}

__getattr__ = names_of(__name__, _HOMES)
