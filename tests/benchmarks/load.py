"""How fast a whole load is, beside the least it can take and beside dlt's own REST source."""

from __future__ import annotations

import argparse
import os

from .measuring import Cost, Ratio, say, serve, show


def main() -> None:
    """Measures each side in turn, so that a noisy neighbour meets all of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--conversations", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--delay-ms", type=float, default=0, help="time that each answer takes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--oddities",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="payloads that deviate from their documentation, as real ones do, only more often",
    )
    parser.add_argument(
        "--rest-api-conversations",
        type=int,
        default=1_000,
        help="the REST source is slow: it loads so many, 0 for leaving it out",
    )
    options = parser.parse_args()
    served = {"seed": options.seed, "delay_ms": options.delay_ms, "oddities": options.oddities}
    sides = ("ours",) if options.delay_ms else ("ours", "floor")
    runs: dict[str, list[Cost]] = {side: [] for side in sides}
    with serve(options.conversations, **served) as server:
        for _ in range(options.rounds):
            for side, costs in runs.items():
                costs.append(server.run(side, options.workers))
    if options.rest_api_conversations and not options.delay_ms:
        with serve(options.rest_api_conversations, **served) as server:
            runs["rest_api"] = [server.run("rest_api", options.workers)]
    load = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    show(f"{options.conversations:,} conversations, {options.workers} workers, {load}", runs)
    _show_ratios(runs, options.delay_ms / 1000, options.workers)


def _show_ratios(runs: dict[str, list[Cost]], delay_seconds: float, workers: int) -> None:
    ours = runs["ours"]
    median = Cost.of(ours)
    if floor := runs.get("floor"):
        for name, figure in (("time", "seconds"), ("CPU", "cpu_seconds")):
            ratio = Ratio.of(*([getattr(run, figure) for run in side] for side in (ours, floor)))
            say(f"ours / floor: {ratio} the {name}" + " (at most 1.5)" * (name == "time"))
    if rest_api := runs.get("rest_api"):
        only = Cost.of(rest_api)
        times = median.conversations_a_second / only.conversations_a_second
        say(
            f"ours / rest_api: {times:.1f} x the conversations a second (at least 10); "
            f"rest_api loaded {only.conversations:,} only"
        )
    if delay_seconds:
        ideal = median.requests * delay_seconds / workers
        ratio = Ratio.of([run.seconds for run in ours], [ideal] * len(ours))
        say(
            f"requests x delay / workers: {ideal:.2f} s; ours takes {ratio} that (at most 1.15), "
            f"and {median.start_up_seconds:.2f} s to start up"
        )


if __name__ == "__main__":
    main()
