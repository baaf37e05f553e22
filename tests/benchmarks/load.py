"""How fast a whole load is, beside the least it can take and beside dlt's own REST source."""

from __future__ import annotations

import argparse

from .measuring import Cost, say, serve, show


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
    medians = {side: Cost.of(costs) for side, costs in runs.items()}
    if options.rest_api_conversations and not options.delay_ms:
        with serve(options.rest_api_conversations, **served) as server:
            medians["rest_api"] = server.run("rest_api", options.workers)
    show(f"{options.conversations:,} conversations, {options.workers} workers", medians)
    _show_ratios(medians, options.delay_ms / 1000, options.workers)


def _show_ratios(medians: dict[str, Cost], delay_seconds: float, workers: int) -> None:
    ours = medians["ours"]
    if floor := medians.get("floor"):
        say(f"ours / floor: {ours.seconds / floor.seconds:.2f} x the time (at most 1.5)")
    if rest_api := medians.get("rest_api"):
        times = ours.conversations_a_second / rest_api.conversations_a_second
        say(
            f"ours / rest_api: {times:.1f} x the conversations a second (at least 10); "
            f"rest_api loaded {rest_api.conversations:,} only"
        )
    if delay_seconds:
        ideal = ours.requests * delay_seconds / workers
        say(
            f"requests x delay / workers: {ideal:.2f} s; ours takes {ours.seconds / ideal:.2f} x "
            f"that (at most 1.15) and {ours.start_up_seconds:.2f} s to start up"
        )


if __name__ == "__main__":
    main()
