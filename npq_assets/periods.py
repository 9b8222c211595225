"""What a period is at this company, and as of which day the next decision is due.

A period is a day or a week: `npq.toml` says so, else the dates of the sales show it (CONTRACTS: time).
"""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl

from npq_assets.contracts import LANDING, Kind
from npq_assets.errors import NpqError
from npq_assets.settings import Home, Period

DAYS: dict[str, int] = {"day": 1, "week": 7}


def detect_period(dates: list[date]) -> Period:
    """`week` if all dates of the sales fall on one weekday and there are at least two of them, else `day`."""
    distinct = set(dates)
    if len(distinct) >= 2 and len({day.weekday() for day in distinct}) == 1:
        return "week"
    return "day"


def period_of(home: Home) -> Period:
    """The company's period, from its settings or from the sales accepted so far."""
    if home.settings.period:
        return home.settings.period
    sales = home.raw_table("retail", "sales")
    if not sales.exists():
        return "day"
    return detect_period(pl.scan_parquet(sales).select(pl.col("sold_on").unique()).collect()["sold_on"].to_list())


def known_before(as_of: date, period: Period) -> date:
    """The last period start whose period had ended before `as_of` opened: a week counts once its Sunday is over."""
    return as_of - timedelta(days=DAYS[period])


def latest_as_of(home: Home) -> date:
    """The day after the last one that any accepted row tells of: the next decision is taken before it opens.

    Raises:
        NpqError: No table has rows with dates.
    """
    days = []
    period = period_of(home)
    for table in LANDING.values():
        place = home.raw_table(table.domain, table.name)
        if table.full_name not in _FACTS or not place.exists():
            continue
        column = table.column(table.time_column or "")
        # A table kept by day: its last day tells, if it has rows.
        places = sorted(place.glob("*=2*/*.parquet"), reverse=True) if place.is_dir() else [place]
        last = None
        for some in places:
            rows = pl.scan_parquet(some, hive_partitioning=False)
            last = rows.select(pl.col(column.name).max().cast(pl.Date)).collect().item()
            if last is not None:
                break
        if last is None:
            continue
        if table.full_name == "retail.stock" or table.full_name == "manufacturing.plant_stock":
            days.append(last)  # counted when the day opens, hence known before the decision of that day
        elif column.kind is Kind.DATE and table.domain == "retail":
            days.append(last + timedelta(days=DAYS[period]))
        else:
            days.append(last + timedelta(days=1))
    if not days:
        raise NpqError(f"{home.landing}: no rows with dates were accepted; land sales or other facts, or give --as-of")
    return max(days)


_FACTS = {
    "retail.sales",
    "retail.stock",
    "retail.baskets",
    "manufacturing.production_log",
    "manufacturing.plant_stock",
    "manufacturing.telemetry",
    "logistics.trips",
}
