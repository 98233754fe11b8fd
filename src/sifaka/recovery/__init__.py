"""Why a run failed, what can be done, what is allowed, and how sure we are (floor 4)."""

from sifaka.recovery.actions import RecoveryAction, RecoveryStrategy
from sifaka.recovery.manager import RecoveryManager
from sifaka.recovery.rules import Rule

__all__ = ["RecoveryAction", "RecoveryManager", "RecoveryStrategy", "Rule"]
