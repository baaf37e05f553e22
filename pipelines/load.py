"""The scheduled job as a script: loads everything new or changed, all agents.

`python pipelines/load.py` is `polyai-warehouse load`, for schedulers that start scripts. It takes
the same options, is set up the same way, stops on the same signals and ends with the same codes.
"""

from __future__ import annotations

import sys

from polyai.cli.app import main

if __name__ == "__main__":
    sys.argv.insert(1, "load")
    main()
