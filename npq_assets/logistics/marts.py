"""The marts that logistics reads, and when a day opens.

Which of their rows may be looked at does not belong here (see `inputs` and `sourcing_inputs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime

import polars as pl

from npq_assets.errors import NpqError
from npq_assets.settings import Home


def opening(day: date) -> datetime:
    """When a day opens: midnight UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def mart(home: Home, model: str, domain: str = "logistics") -> pl.DataFrame:
    """A mart as dbt built it.

    Raises:
        NpqError: It does not exist.
    """
    place = home.mart(domain, model)
    if not place.exists():
        raise NpqError(f"{place}: not built yet; materialize marts/{domain}/{model} (npq run does)")
    return pl.read_parquet(place)


def stop_columns(opened: datetime, place_of: Mapping[str, int], first: int) -> list[pl.Expr]:
    """Columns of a routing problem's stops from rows of deliveries, in minutes after a day's opening.

    Args:
        opened: When the day opens.
        place_of: Place of each depot.
        first: Place of the first row; the others follow.
    """
    minute = lambda name: (pl.col(name) - opened).dt.total_seconds() / 60.0  # noqa: E731
    return [
        (pl.int_range(pl.len()) + first).alias("place"),
        pl.col("depot_id").replace_strict(place_of, return_dtype=pl.Int64).alias("depot"),
        pl.col("quantity"),
        minute("ready_at").alias("ready"),
        minute("due_at").alias("due"),
        pl.col("service_minutes").alias("service"),
        pl.col("late_cost_per_minute").alias("late_cost"),
        pl.col("drop_cost"),
    ]
