"""Target of a load, as plain values that other processes can be given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import dlt

from .open import PIPELINE_NAME, open_pipeline


@dataclass(frozen=True)
class Target:
    """Destination, dataset and working directory of the warehouse.

    Attributes:
        destination: dlt's name of the destination. Default: dlt's setting `destination_type`,
            else `duckdb`.
        dataset: Dataset in the destination. Default: `polyai`.
        pipelines_dir: Working directory of dlt. Default: `.dlt/pipelines`.
    """

    destination: str | None = None
    dataset: str | None = None
    pipelines_dir: Path | None = None

    def open(self, name: str = PIPELINE_NAME) -> dlt.Pipeline:
        """Opens a pipeline with this target; nothing is connected yet.

        Args:
            name: Name of the pipeline and of its working directory.

        Raises:
            ConfigurationError: The destination is unknown, not configured, or not a database.
        """
        return open_pipeline(self.destination, self.dataset, self.pipelines_dir, name)


DEFAULT_TARGET = Target()
"""Target that dlt's configuration chooses."""
