"""``python -m bench [--quick] [--rows alone,long] [--stores sqlite,redis] [--data FOLDER]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.report import run
from bench.rows import FULL, GROUPS, QUICK
from bench.store_rows import DURABLE


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Medians of interleaved runs: sifaka beside a hand-written floor and two peers.",
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, under a minute")
    parser.add_argument(
        "--rows", default=",".join(GROUPS), help=f"groups of rows, by comma: {', '.join(GROUPS)}"
    )
    parser.add_argument("--data", type=Path, help="a folder on the disk to measure (default: here)")
    parser.add_argument(
        "--stores",
        default="sqlite",
        help=f"stores that `scale` fills with a million records, by comma: {', '.join(DURABLE)}; the others get less",
    )
    chosen = parser.parse_args()
    groups, large = chosen.rows.split(","), tuple(chosen.stores.split(","))
    unknown = [group for group in groups if group not in GROUPS]
    if unknown:
        parser.error(f"no such rows: {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    if strange := [store for store in large if store not in DURABLE]:
        parser.error(f"no such stores: {', '.join(strange)}; there are {', '.join(DURABLE)}")
    effort = QUICK if chosen.quick else FULL
    return run(groups, effort._replace(large=large), chosen.data)


if __name__ == "__main__":
    sys.exit(main())
