"""The billing ledger: a line for each call that was charged, before the reply is sent (floor 8)."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import msgspec

from sifaka.testing.provider.script import Bill

__all__ = ["Ledger"]


class Ledger:
    """Bills in memory, or in a file that outlives this process and can be shared."""

    def __init__(self, path: str | os.PathLike[str] = "") -> None:
        self._path = Path(path) if path else None
        self._bills: list[Bill] = []
        self._lock = threading.Lock()

    def bills(self) -> list[Bill]:
        """What was billed, oldest first."""
        if self._path is None:
            with self._lock:
                return list(self._bills)
        if not self._path.exists():
            return []
        return msgspec.json.Decoder(Bill).decode_lines(self._path.read_bytes())

    def add(self, bill: Bill) -> None:
        """Charge for a call."""
        with self._lock:
            self._bills.append(bill)
        if self._path is None:
            return
        # One write of one line, appended: processes that share the file cannot mix their lines.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        file = os.open(self._path, flags, 0o600)
        try:
            os.write(file, msgspec.json.encode(bill) + b"\n")
        finally:
            os.close(file)
