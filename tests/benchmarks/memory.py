"""How much memory a load takes, and that it does not grow with the number of conversations."""

from __future__ import annotations

import argparse

from .measuring import Cost, say, serve, show


def main() -> None:
    """Measures a small and a large load in turn."""
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
    small, large = (Cost.of(costs) for costs in runs.values())
    sizes = (f"{options.small:,}", f"{options.large:,}")
    show("ours, by conversations", dict(zip(sizes, (small, large))))
    grown = large.peak_rss_bytes / small.peak_rss_bytes
    say(f"peak memory: {grown:.2f} x (at most 1.10), under 400 MB")


if __name__ == "__main__":
    main()
