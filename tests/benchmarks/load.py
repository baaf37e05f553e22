"""Speed of a whole load, compared with a minimal script and with dlt's own REST source."""

from __future__ import annotations

import argparse
import os

from .measuring import Cost, Ratio, report, serve, show_costs


def main() -> None:
    """Measures the sides alternately, so that other processes affect all of them alike."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--conversations", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--delay-ms", type=float, default=0, help="delay of each response")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--oddities",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="serve payloads that deviate from their documentation, more often than real ones do",
    )
    parser.add_argument(
        "--rest-api",
        action="store_true",
        help="compare with dlt's REST source too, which takes minutes for 10,000",
    )
    options = parser.parse_args()
    served = {"seed": options.seed, "delay_ms": options.delay_ms, "oddities": options.oddities}
    sides = ["ours"] if options.delay_ms else ["ours", "floor"]
    runs: dict[str, list[Cost]] = {side: [] for side in sides + ["rest_api"] * options.rest_api}
    with serve(options.conversations, **served) as server:
        for _ in range(options.rounds):
            for side, costs in runs.items():
                costs.append(server.run(side, options.workers))
    load = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    show_costs(f"{options.conversations:,} conversations, {options.workers} workers, {load}", runs)
    _show_ratios(runs, options.delay_ms / 1000, options.workers)


def _show_ratios(runs: dict[str, list[Cost]], delay_seconds: float, workers: int) -> None:
    ours = runs["ours"]
    median = Cost.of(ours)
    for side, others in runs.items():
        if side != "ours":
            for name, figure in (("time", "seconds"), ("whole CPU", "whole_cpu_seconds")):
                pairs = ([getattr(run, figure) for run in costs] for costs in (ours, others))
                report(f"ours / {side}: {name} {Ratio.of(*pairs)}")
    if delay_seconds:
        ideal = median.requests * delay_seconds / workers
        ratio = Ratio.of([run.seconds for run in ours], [ideal] * len(ours))
        report(
            f"requests x delay / workers: {ideal:.2f} s; ours / that: {ratio} (at most 1.15), "
            f"without a start-up of {median.start_up_seconds:.2f} s"
        )


if __name__ == "__main__":
    main()
