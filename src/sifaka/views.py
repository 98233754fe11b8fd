"""What a person sees of a run, as folds of its log: the one vocabulary of every rendering (floor 5)."""

from __future__ import annotations

from collections.abc import Iterable

from sifaka.log.records import OPERATIONS, Reached, Record, Result

__all__ = ["bottlenecks"]


def bottlenecks(records: Iterable[Record]) -> list[str]:
    """Where time and money went, one sentence an operation, costliest in time first.

    Time is the operation's own, parts that ran together counted once.
    """
    seconds: dict[str, float] = dict.fromkeys(OPERATIONS, 0.0)
    cost: dict[str, float] = dict.fromkeys(OPERATIONS, 0.0)
    operation = "retrieval"
    for record in records:
        if isinstance(record, Reached):
            seconds[operation] += record.seconds
            operation = record.to.operation
        elif isinstance(record, Result):
            cost[record.operation] += record.price_usd or 0.0
    total = sum(seconds.values())
    order = sorted(OPERATIONS, key=lambda name: (-seconds[name], -cost[name]))
    return [
        f"{name}: {seconds[name]:.2f} s ({seconds[name] / total:.0%} of the time), ${cost[name]:.4f}"
        for name in order
        if total and (seconds[name] > 0 or cost[name] > 0)
    ]
