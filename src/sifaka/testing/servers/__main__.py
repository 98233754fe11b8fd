"""Prints the Debian packages of the servers that are missing, on one line (floor 8)."""

from __future__ import annotations

import sys

from sifaka.testing.servers import missing

sys.stdout.write(" ".join(missing()))
