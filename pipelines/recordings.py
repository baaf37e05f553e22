"""The recordings as a script: fetches the audio that is missing, all agents.

`python pipelines/recordings.py` is `polyai-warehouse recordings`, for schedulers that start
scripts. It takes the same options, is set up the same way, stops on the same signals and ends with
the same codes.
"""

from __future__ import annotations

import sys

from polyai.cli.app import main

if __name__ == "__main__":
    sys.argv.insert(1, "recordings")
    main()
