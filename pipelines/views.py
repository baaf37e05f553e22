"""Create or replace the SQL views, and publish for BI tools if `publish_to` is set.

`load.py` does the same after each load. Run this after a change of POLYAI_REPORTING_TIME_ZONE or
POLYAI_PUBLISH_TO, or after a backfill. Needs no API key, only the destination.
"""

import threading

import polyai


def main(stop: threading.Event) -> int:
    """Creates all views in one transaction."""
    result = polyai.views()
    print(f"{len(result.report.created)} views, local dates in {result.report.zone}")
    for name, error in result.report.failed.items():
        print(f"view {name}: {error}")
    if result.published:
        print(f"published: {result.published.place}")
    return result.exit_code


if __name__ == "__main__":
    polyai.run_script(main)
