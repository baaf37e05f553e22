"""Set the notes of conversations, from a file: `python pipelines/note.py notes.csv`.

Columns: conversation_id, note, and agent_id if there are several agents. A note that is newer than
the warehouse's is kept, unless `overwrite=True`. Instead of `file`, `polyai.note` also takes `rows`
(mappings or a dataframe) or `query` (a SELECT over the warehouse).
"""

import sys
import threading

import polyai


def main(stop: threading.Event) -> int:
    """Sends the notes, and names those that were not sent."""
    done = polyai.note(file=sys.argv[1], stop=stop)
    print(", ".join(f"{count} {outcome}" for outcome, count in done.outcomes.items()))
    for result in done.results:
        if result.reason:
            print(f"row {result.place}: {result.outcome}, {result.reason}")
    return done.exit_code


if __name__ == "__main__":
    polyai.run_script(main)
