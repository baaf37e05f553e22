"""Parts of generated documents: the command, files, and Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

COMMAND = "python -m schemas.generate"


def put(folder: Path, files: Iterable[tuple[str, str]], *, instead_of: str | None = None) -> None:
    """Writes generated files into a folder.

    Args:
        folder: Created if needed, as are its subfolders.
        files: Path within the folder, and text.
        instead_of: Pattern of older files in the folder, which are deleted first.
    """
    for path in folder.glob(instead_of) if instead_of else ():
        path.unlink()
    for name, text in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


def grid(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    lines = [heading, ["---"] * len(heading), *rows]
    cells = ([cell.replace("|", r"\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)
