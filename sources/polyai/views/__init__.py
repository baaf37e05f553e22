"""SQL views for analysts and BI: one `.sql` file per view, created on any SQL destination."""

from __future__ import annotations

from ..config.time_zones import time_zone
from .creation import (
    PIPELINE_NAME,
    ViewsReport,
    create_views,
    drop_views,
    views_are_current,
)
from .publishing import Published, publish
from .refresh import Refreshed, refresh

__all__ = [
    "PIPELINE_NAME",
    "Published",
    "Refreshed",
    "ViewsReport",
    "create_views",
    "drop_views",
    "publish",
    "refresh",
    "time_zone",
    "views_are_current",
]
