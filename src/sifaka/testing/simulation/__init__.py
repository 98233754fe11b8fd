"""The simulator: chains in virtual time, against providers that have bad hours (floor 8).

* :class:`Simulation`: thousands of runs in one thread, on a real store, the same for the same seed.
* :class:`VirtualClock`: its time; parts tell how long they take by sleeping on it.
* :class:`SimulatedProvider`: good and bad times (:class:`Incidents`, :class:`Outages`), a real
  :class:`TokenBucket`, latencies, prices, and a ledger of what arrived.
"""

from sifaka.testing.simulation.clock import Pause, VirtualClock
from sifaka.testing.simulation.driver import Run, Simulation
from sifaka.testing.simulation.failures import ProviderStatusError, failure
from sifaka.testing.simulation.provider import Arrival, SimulatedModel, SimulatedProvider
from sifaka.testing.simulation.weather import (
    ANTHROPIC,
    OPENAI,
    Climate,
    Incidents,
    Outages,
    TokenBucket,
    Weather,
)

__all__ = [
    "ANTHROPIC",
    "OPENAI",
    "Arrival",
    "Climate",
    "Incidents",
    "Outages",
    "Pause",
    "ProviderStatusError",
    "Run",
    "SimulatedModel",
    "SimulatedProvider",
    "Simulation",
    "TokenBucket",
    "VirtualClock",
    "Weather",
    "failure",
]
