"""Scenarios as a script: tries them as debug chats, for CI systems that start scripts.

`python pipelines/debug_chat.py bookings.yaml` is `polyai-warehouse debug-chat bookings.yaml`. It
takes the same options, is set up the same way, stops on the same signals and ends with the same
codes.
"""

from __future__ import annotations

import sys

from polyai.cli.app import main

if __name__ == "__main__":
    sys.argv.insert(1, "debug-chat")
    main()
