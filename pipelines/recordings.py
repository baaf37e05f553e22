"""Fetch the missing recordings of the loaded calls, all agents.

POLYAI_RECORDINGS_URL is the folder or bucket of the files. Run it after `load.py`.
"""

import threading

import polyai


def main(stop: threading.Event) -> int:
    """Fetches what is missing, oldest calls first."""
    result = polyai.recordings(stop=stop)
    for report in result.reports:
        print(
            f"{report.agent_id}: {report.status}, {report.fetched} stored, "
            f"{report.audio_bytes / 1e6:.1f} MB, {report.not_found} not found, "
            f"{report.failed} failed {report.error or ''}"
        )
    return result.exit_code


if __name__ == "__main__":
    polyai.run_script(main)
