"""Erase conversations for good: `python pipelines/forget.py CONVERSATION_ID...`.

Erases rows, recordings and the published copy, without asking for confirmation. Later loads do not
restore them. For all conversations of a phone number, pass `callers=["+44..."]` to `polyai.forget`;
with `dry_run=True` it only reports what would be erased.
"""

import sys
import threading

import polyai


def main(stop: threading.Event) -> int:
    """Erases the conversations that the command line names."""
    result = polyai.forget(*sys.argv[1:], reason="data subject request", stop=stop)
    for agent in result.agents:
        print(
            f"{agent.agent_id}: {len(agent.conversations)} conversations, "
            f"{sum(agent.rows.values())} rows, {agent.recordings} recordings {agent.error or ''}"
        )
    return result.exit_code


if __name__ == "__main__":
    polyai.run_script(main)
