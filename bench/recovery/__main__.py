"""``python -m bench.recovery [--quick] [--seeds N] [--episodes N] [--no-ablations] [--workers N]``."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from bench.recovery.report import report
from bench.recovery.season import Season, play


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.recovery",
        description="Recovery policies in simulated worlds, beside an oracle; medians over seeds.",
    )
    parser.add_argument("--quick", action="store_true", help="4 seeds of 1,500 episodes, about half a minute")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--episodes", type=int, default=3_000)
    parser.add_argument("--no-ablations", dest="ablations", action="store_false")
    parser.add_argument("--similar", type=int, default=3, help="so many seeds also with similar cases")
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.seeds, chosen.episodes, chosen.similar = 4, 1_500, 0
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.seeds)
    seasons: list[Season] = []
    one = partial(
        play,
        episodes=chosen.episodes,
        ablate=chosen.ablations,
        similar_to=chosen.first_seed + chosen.similar - 1,
    )
    with ProcessPoolExecutor(chosen.workers) as pool:
        for season in pool.map(one, seeds):
            seasons.append(season)
            print(f"seed {season.seed}: {len(seasons)} of {chosen.seeds}", file=sys.stderr, flush=True)
    print(report(seasons, chosen.episodes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
