"""A backfill as a script: loads one explicit range, in slices.

`python pipelines/backfill.py --from 2024-01-01 --to 2024-07-01` is `polyai-warehouse backfill`, for
schedulers that start scripts. It takes the same options, is set up the same way, stops on the same
signals and ends with the same codes.
"""

from __future__ import annotations

import sys

from polyai.cli.app import main

if __name__ == "__main__":
    sys.argv.insert(1, "backfill")
    main()
