"""Notes as a script: sets those of a file, or of a query over the warehouse.

`python pipelines/note.py notes.csv` is `polyai-warehouse note notes.csv`. It takes the same
options, is set up the same way, stops on the same signals and ends with the same codes.
"""

from __future__ import annotations

import sys

from polyai.cli.app import main

if __name__ == "__main__":
    sys.argv.insert(1, "note")
    main()
