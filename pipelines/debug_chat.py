"""Run scenarios against an agent, in CI: `python pipelines/debug_chat.py bookings.yaml`.

Results go into the warehouse, and as JUnit XML into `results.xml`. Exit code 3: a scenario failed.
"""

import os
import sys
import threading

import polyai


def main(stop: threading.Event) -> int:
    """Runs all scenarios of the files in parallel."""
    result = polyai.debug_chat(
        *sys.argv[1:],
        label=os.environ.get("GITHUB_SHA"),
        junit="results.xml",
        stop=stop,
    )
    for scenario in result.run.scenarios:
        print(f"{scenario.outcome} {scenario.suite} / {scenario.scenario}")
        for reason in scenario.reasons:
            print(f"  {reason}")
    for error in result.errors:
        print(f"error: {error}")
    return result.exit_code


if __name__ == "__main__":
    polyai.run_script(main)
