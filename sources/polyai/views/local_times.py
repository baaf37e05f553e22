"""Local times on DuckDB by arithmetic, which takes a tenth of the time of its `AT TIME ZONE`.

A filter on a local date converts the start of every conversation, and DuckDB looks up the time
zone for each row. The views therefore look up the offset once per UTC day, and convert row by row
only on days on which it changes.
"""

from __future__ import annotations

from sqlglot import exp, parse_one

from .definitions import DIALECT

LOCAL_TIME = "local_started_at"
"""Column of a local time, defined as `… AT TIME ZONE …`."""

_OFFSETS = """
SELECT
  utc_day,
  epoch_us(to_timestamp(utc_day * 86400) AT TIME ZONE {zone})
    - utc_day * 86400000000 AS offset_us,
  epoch_us(to_timestamp((utc_day + 1) * 86400) AT TIME ZONE {zone})
    - (utc_day + 1) * 86400000000 AS next_offset_us
FROM range(16436, 24108) AS days(utc_day)
"""
"""Offsets at the start and end of UTC days from 2015 to 2035, numbered from 1970."""

_UTC_DAY = "utc_days.utc_day = epoch_us({moment}) // 86400000000"

_LOCAL_TIME = """
CASE
  WHEN utc_days.offset_us = utc_days.next_offset_us
    THEN make_timestamp(epoch_us({moment}) + utc_days.offset_us)
  ELSE {moment} AT TIME ZONE {zone}
END
"""


def use_offsets_of_days(tree: exp.Query) -> None:
    """Converts the local times of a query by the offset of their UTC day; changes the tree."""
    for column in list(tree.find_all(exp.Alias)):
        conversion, select = column.this, column.parent_select
        if column.alias == LOCAL_TIME and isinstance(conversion, exp.AtTimeZone) and select:
            moment = conversion.this.sql(DIALECT)
            zone = conversion.args["zone"].sql(DIALECT)
            column.set(
                "this", parse_one(_LOCAL_TIME.format(moment=moment, zone=zone), read=DIALECT)
            )
            select.join(
                parse_one(_OFFSETS.format(zone=zone), read=DIALECT, into=exp.Select),
                on=_UTC_DAY.format(moment=moment),
                join_type="left",
                join_alias="utc_days",
                dialect=DIALECT,
                copy=False,
            )
