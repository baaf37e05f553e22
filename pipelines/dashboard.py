"""The dashboard as a script: `python pipelines/dashboard.py` is `polyai-warehouse dashboard`.

For services that start scripts. It takes the same options and stops on the same signals.
"""

from __future__ import annotations

import sys

from polyai.cli.app import main

if __name__ == "__main__":
    sys.argv.insert(1, "dashboard")
    main()
