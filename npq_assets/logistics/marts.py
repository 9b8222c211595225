"""The marts that logistics reads, and when a day opens.

Which of their rows may be looked at does not belong here (see `inputs` and `sourcing_inputs`).
"""

from __future__ import annotations

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
