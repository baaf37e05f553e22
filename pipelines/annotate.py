"""Add annotations to turns, from a file: `python pipelines/annotate.py flags.csv`.

Columns: conversation_id, turn_index, role, annotation_type, and agent_id if there are several
agents. Idempotent: an annotation is sent once. Instead of `file`, `polyai.annotate` also takes
`rows` (mappings or a dataframe) or `query` (a SELECT over the warehouse).
"""

import sys
import threading

import polyai


def main(stop: threading.Event) -> int:
    """Sends the annotations, and names those that were not sent."""
    done = polyai.annotate(file=sys.argv[1], stop=stop)
    print(", ".join(f"{count} {outcome}" for outcome, count in done.outcomes.items()))
    for result in done.results:
        if result.reason:
            print(f"row {result.place}: {result.outcome}, {result.reason}")
    return done.exit_code


if __name__ == "__main__":
    polyai.run_script(main)
