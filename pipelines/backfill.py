"""Load the last days of all agents in slices: `python pipelines/backfill.py 365`.

Idempotent: conversations that are loaded and unchanged are skipped, so a failed backfill is simply
run again. Can run beside `load.py`.
"""

import sys
import threading
from datetime import UTC, datetime, timedelta

import polyai


def main(stop: threading.Event) -> int:
    """Loads one slice per day, two slices at a time."""
    now = datetime.now(UTC)
    days = timedelta(days=int(sys.argv[1]) if sys.argv[1:] else 30)
    result = polyai.backfill(
        polyai.Span(now - days, now),
        slice_length=timedelta(days=1),
        workers=2,
        stop=stop,
    )
    for report in result.slices:
        counts = report.counts
        print(
            f"{report.slice}: {report.status}, {counts['new']} new, {counts['changed']} changed, "
            f"{counts['failed']} failed {report.error or ''}"
        )
    return result.exit_code


if __name__ == "__main__":  # required: each worker process imports this file
    polyai.run_script(main)
