"""Memory of a load, which must not grow with the number of conversations."""

from __future__ import annotations

import argparse

from .measuring import Cost, Ratio, report, serve, show_costs


def main() -> None:
    """Measures a small and a large load alternately."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=8)
    options = parser.parse_args()
    runs: dict[int, list[Cost]] = {options.small: [], options.large: []}
    for _ in range(options.rounds):
        for conversations, costs in runs.items():
            with serve(conversations) as server:
                costs.append(server.run("ours", options.workers))
    show_costs("ours, by conversations", {f"{size:,}": costs for size, costs in runs.items()})
    small, large = ([run.peak_rss_bytes for run in costs] for costs in runs.values())
    report(f"peak memory: {Ratio.of(large, small)} (at most 1.10), under 400 MB")


if __name__ == "__main__":
    main()
