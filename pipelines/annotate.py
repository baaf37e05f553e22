"""Annotations as a script: adds those of a file, or of a query over the warehouse, to turns.

`python pipelines/annotate.py flags.csv` is `polyai-warehouse annotate flags.csv`. It takes the same
options, is set up the same way, stops on the same signals and ends with the same codes.
"""

from __future__ import annotations

import sys

from polyai.cli.app import main

if __name__ == "__main__":
    sys.argv.insert(1, "annotate")
    main()
