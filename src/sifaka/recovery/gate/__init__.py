"""What every call to a provider passes: breakers, common waits and retry budgets of one store (floor 4)."""

from sifaka.recovery.gate.gate import CELLS, Admission, Gate, GateSettings

__all__ = ["CELLS", "Admission", "Gate", "GateSettings"]
