"""Command that writes all generated documents.

The documents are kept in the repository, so that each change can be reviewed as a diff.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from . import cookbook, dbt_sources, dictionary, entities, views


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes all generated documents into a folder."""
    parser = argparse.ArgumentParser(prog="python -m schemas.generate", description=main.__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parents[1])
    folder = parser.parse_args(arguments).folder
    for document in (dictionary, views, entities, cookbook, dbt_sources):
        document.write(folder)


if __name__ == "__main__":
    main()
