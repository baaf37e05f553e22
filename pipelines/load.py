"""Load new and changed conversations of all agents: the job for a scheduler.

Settings come from the environment or from `.dlt/`: POLYAI_API_KEY, POLYAI_AGENT_ID, POLYAI_REGION.
The destination is dlt's DESTINATION_TYPE, by default the DuckDB file `polyai.duckdb`. Run it every
15 minutes; exit code 75 means that the previous run is still running.
"""

import threading

import polyai


def main(stop: threading.Event) -> int:
    """Loads, refreshes the views, and publishes a copy if `publish_to` is set."""
    result = polyai.load(stop=stop)
    for report in result.reports:
        print(
            f"{report.agent_id}: {report.status}, {report.listed} listed, {report.new} new, "
            f"{report.changed} changed, {report.failed} failed {report.error or ''}"
        )
    if result.publish_error:
        print(f"not published: {result.publish_error}")
    return result.exit_code


if __name__ == "__main__":
    polyai.run_script(main)
