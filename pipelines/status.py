"""Check that the warehouse is fresh and consistent; exit code 1 if it is not.

Needs no API key, only the destination. Run it every hour, and alert on exit code 1.
"""

import threading
from datetime import timedelta

import polyai


def main(stop: threading.Event) -> int:
    """Compares the age of each agent's last complete load with 90 minutes."""
    result = polyai.status(max_age=timedelta(minutes=90))
    for agent in result.agents:
        print(
            f"{agent.agent_id}: {'stale' if agent.is_stale else 'fresh'}, "
            f"{'consistent' if agent.is_consistent else 'inconsistent'}, "
            f"{agent.conversations.held} loaded, {agent.missing} missing, "
            f"{agent.failures.open} failed"
        )
    return result.exit_code


if __name__ == "__main__":
    polyai.run_script(main)
