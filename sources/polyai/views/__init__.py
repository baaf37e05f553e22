"""SQL views for analysts and BI: one `.sql` file each, created on any SQL destination."""

from __future__ import annotations

from ..time_zones import time_zone
from .creation import (
    PIPELINE_NAME,
    ViewsReport,
    create_views,
    drop_views,
    views_are_current,
)

__all__ = [
    "PIPELINE_NAME",
    "ViewsReport",
    "create_views",
    "drop_views",
    "time_zone",
    "views_are_current",
]
