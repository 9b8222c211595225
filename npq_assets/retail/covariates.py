"""What is known ahead of a period and moves its demand: promotions and events, as numeric columns.

The same function prepares the past for training and the future for forecasting, so that both mean the same.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

import polars as pl

from npq_assets.periods import DAYS
from npq_assets.settings import Period

EVENT_REACH = 7
"""Periods before and after an event in which it may move demand."""


def with_covariates(
    frame: pl.DataFrame, promotions: pl.DataFrame, events: pl.DataFrame, sites: pl.DataFrame, period: Period
) -> pl.DataFrame:
    """Adds what is known ahead of each period: discount, promoted, event and how far off the next and last event are.

    Args:
        frame: site_id, product_id, period_start, and, for the past, promotion (from the sales).
        promotions: product_id, starts_on, ends_on, discount.
        events: event_on, name, region (null: everywhere).
        sites: site_id, region.
        period: Length of a period.
    """
    if frame.is_empty():
        return frame
    days = DAYS[period]
    first, last = frame["period_start"].min(), frame["period_start"].max()
    origin = date(2000, 1, 3)  # a Monday
    assert isinstance(first, date) and isinstance(last, date)
    phase = (first - origin).days % days
    anchor = origin + timedelta(days=phase)

    def start_of(column: str) -> pl.Expr:
        offset = (pl.col(column) - anchor).dt.total_days()
        return (pl.lit(anchor) + pl.duration(days=(offset // days) * days)).cast(pl.Date)

    discounts = (
        promotions.filter((pl.col("ends_on") >= first) & (pl.col("starts_on") <= last + timedelta(days=days)))
        .with_columns(pl.date_ranges("starts_on", "ends_on").alias("day"))
        .explode("day")
        .drop_nulls("day")
        .group_by("product_id", "day")
        .agg(pl.col("discount").max())
        .with_columns(start_of("day").alias("period_start"))
        .group_by("product_id", "period_start")
        .agg((pl.col("discount").sum() / days).alias("discount"), (pl.len() / days).alias("offered"))
    )
    out = frame.join(discounts, on=["product_id", "period_start"], how="left").with_columns(
        pl.col("discount").fill_null(0.0), pl.col("offered").fill_null(0.0)
    )
    seen = pl.col("promotion") if "promotion" in frame.columns else pl.lit(0.0)
    out = out.with_columns(pl.max_horizontal("offered", seen.fill_null(0.0)).alias("promoted"))
    out = out.drop("offered", *(["promotion"] if "promotion" in frame.columns else []))
    return _with_events(out, events, sites, days, start_of)


def _with_events(
    frame: pl.DataFrame, events: pl.DataFrame, sites: pl.DataFrame, days: int, start_of: Callable[[str], pl.Expr]
) -> pl.DataFrame:
    if events.is_empty():
        return frame
    names = {name: rank + 1 for rank, name in enumerate(events["name"].unique().sort())}
    marks = events.with_columns(
        start_of("event_on").alias("period_start"),
        pl.col("name").replace_strict(names, return_dtype=pl.Int64).alias("event"),
    )
    regions = sites.select("site_id", "region")
    place_of_event = (
        pl.concat(
            [
                marks.filter(pl.col("region").is_null())
                .select("period_start", "event")
                .join(frame.select("site_id").unique(), how="cross"),
                marks.filter(pl.col("region").is_not_null())
                .join(regions, on="region", how="inner")
                .select("period_start", "event", "site_id"),
            ]
        )
        .group_by("site_id", "period_start")
        .agg(pl.col("event").min())
    )
    grid = frame.select("site_id", "period_start").unique().sort("site_id", "period_start")
    place_of_event = place_of_event.sort("site_id", "period_start")
    ahead = grid.join_asof(
        place_of_event.with_columns(
            pl.col("period_start").alias("next_start"), pl.col("event").alias("next_event")
        ).drop("event"),
        on="period_start",
        by="site_id",
        strategy="forward",
        check_sortedness=False,
    )
    around = ahead.join_asof(
        place_of_event.with_columns(
            pl.col("period_start").alias("last_start"), pl.col("event").alias("last_event")
        ).drop("event"),
        on="period_start",
        by="site_id",
        strategy="backward",
        check_sortedness=False,
    )
    until = (pl.col("next_start") - pl.col("period_start")).dt.total_days() // days
    since = (pl.col("period_start") - pl.col("last_start")).dt.total_days() // days
    calendar = around.select(
        "site_id",
        "period_start",
        pl.when(until <= EVENT_REACH)
        .then(until)
        .otherwise(EVENT_REACH + 1)
        .fill_null(EVENT_REACH + 1)
        .cast(pl.Float64)
        .alias("until_event"),
        pl.when(until <= EVENT_REACH)
        .then(pl.col("next_event"))
        .otherwise(0)
        .fill_null(0)
        .cast(pl.Float64)
        .alias("next_event"),
        pl.when(since <= EVENT_REACH)
        .then(since)
        .otherwise(EVENT_REACH + 1)
        .fill_null(EVENT_REACH + 1)
        .cast(pl.Float64)
        .alias("since_event"),
    )
    return frame.join(calendar, on=["site_id", "period_start"], how="left")
