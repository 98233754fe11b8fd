"""Faults: any exception or error text, turned into one of a closed set of kinds (floor 1).

``classify`` answers what every recovery asks first: what was it, will the same call help later,
when, and was it paid? ``redact`` takes secrets out of a text; ``describe`` tells people.
"""

from sifaka.faults.fault import Fault, describe, signature
from sifaka.faults.redaction import redact
from sifaka.faults.table import BILLED, KINDS, TABLE, Row, row
from sifaka.faults.verdict import classify

__all__ = [
    "BILLED",
    "KINDS",
    "TABLE",
    "Fault",
    "Row",
    "classify",
    "describe",
    "redact",
    "row",
    "signature",
]
