"""Where a run's time and money went, operation by operation (floor 5)."""

from __future__ import annotations

from collections.abc import Iterable

from sifaka.log.records import OPERATIONS, Closed, Opened, Reached, Record, Recovery, Result

__all__ = ["bottlenecks"]


def bottlenecks(records: Iterable[Record]) -> list[str]:
    """Where time and money went, one sentence an operation, costliest in time first.

    Time is the operation's own, parts that ran together counted once.
    """
    seconds: dict[str, float] = dict.fromkeys(OPERATIONS, 0.0)
    cost: dict[str, float] = dict.fromkeys(OPERATIONS, 0.0)
    operation, since = "retrieval", 0.0
    for record in records:
        if isinstance(record, Opened):
            since = record.at  # between two lives nothing was done
        elif isinstance(record, Result):
            cost[record.operation] += record.price_usd or 0.0
        elif isinstance(record, Reached | Recovery | Closed):
            seconds[operation] += max(0.0, record.at - since)
            since = record.at
            if not isinstance(record, Closed):
                operation = record.to.operation
    total = sum(seconds.values())
    order = sorted(OPERATIONS, key=lambda name: (-seconds[name], -cost[name]))
    return [
        f"{name}: {seconds[name]:.2f} s ({seconds[name] / total:.0%} of the time), ${cost[name]:.4f}"
        for name in order
        if total and (seconds[name] > 0 or cost[name] > 0)
    ]
