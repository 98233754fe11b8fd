"""Why a run failed, what can be done, what is allowed, and how sure we are (floor 4)."""

from sifaka.recovery.actions import RecoveryAction, RecoveryStrategy
from sifaka.recovery.manager import RecoveryManager

__all__ = ["RecoveryAction", "RecoveryManager", "RecoveryStrategy"]
