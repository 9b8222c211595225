"""Retail decisions as people see them in the report."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl

from npq_assets.periods import DAYS
from npq_assets.reporting.plots import fan_of
from npq_assets.reporting.report import DECISION_COLUMNS
from npq_assets.reporting.svg import Fan
from npq_assets.retail import customer_output
from npq_assets.retail.output import forecast_folder, load_duals, plan_folder
from npq_assets.settings import Home


def decisions_shown(orders: pl.DataFrame | None) -> pl.DataFrame:
    """Orders in the columns of the report's table, those with most at stake first."""
    if orders is None:
        return pl.DataFrame(schema=dict.fromkeys(DECISION_COLUMNS, pl.String))
    return orders.select(
        "decision_id",
        pl.lit("replenishment_orders").alias("kind"),
        pl.format("{} at {}", "product_id", "site_id").alias("subject"),
        pl.when(pl.col("quantity") > 0)
        .then(pl.format("order {} (naive {})", _units("quantity"), _units("naive_quantity")))
        .otherwise(pl.format("no order (naive {})", _units("naive_quantity")))
        .alias("action"),
        pl.col("arrives_on").dt.to_string("%Y-%m-%d").alias("when"),
        (pl.col("naive_expected_cost") - pl.col("expected_cost")).alias("stake"),
        "expected_cost",
        pl.col("naive_expected_cost").alias("naive_cost"),
        "lower_bound",
        "reason",
    ).sort([pl.col("stake").abs(), pl.col("decision_id")], descending=[True, False])


def _units(column: str) -> pl.Expr:
    value = pl.col(column)
    return pl.when(value == value.round()).then(value.cast(pl.Int64).cast(pl.String)).otherwise(value.cast(pl.String))


def fans(home: Home, day: date, orders: pl.DataFrame | None, most: int, past: int) -> list[tuple[str, Fan]]:
    """Forecast pictures of the decisions with most at stake."""
    place = forecast_folder(home, day) / "forecast.parquet"
    if orders is None or not place.exists():
        return []
    shown = (
        decisions_shown(orders).head(most).select("decision_id").join(orders, on="decision_id", maintain_order="left")
    )
    ids = shown["unique_id"].to_list()
    forecast = pl.read_parquet(place, hive_partitioning=False).filter(pl.col("unique_id").is_in(ids))
    step = DAYS["week"] if _weekly(forecast) else DAYS["day"]
    history = (
        pl.scan_parquet(home.mart("retail", "demand"))
        .with_columns((pl.col("site_id") + "|" + pl.col("product_id")).alias("unique_id"))
        .filter(
            pl.col("unique_id").is_in(ids)
            & (pl.col("period_start") < day)
            & (pl.col("period_start") >= day - timedelta(days=step * past))
            & (pl.col("period_start") + pl.duration(days=step) <= day)
        )
        .select("unique_id", pl.col("period_start").alias("ds"), pl.col("quantity").alias("y"), "in_stock")
        .collect()
    )
    pictures = []
    for row in shown.to_dicts():
        marker = (row["arrives_on"] - day).days // step
        pictures.append((row["decision_id"], fan_of(history, forecast, row["unique_id"], past, marker)))
    return pictures


def _weekly(forecast: pl.DataFrame) -> bool:
    gaps = (forecast["ds"] - forecast["cutoff"]).dt.total_days()
    return bool(gaps.len()) and bool((gaps % 7 == 0).all())


def limits_shown(home: Home, day: date) -> pl.DataFrame:
    """Limits that bind, the most valuable first."""
    return load_duals(home, day).filter(pl.col("worth_per_unit") > 0).sort("worth_per_unit", descending=True)


def offer_limits_shown(home: Home, day: date) -> pl.DataFrame:
    """Budgets of offers to customers that bind, the most valuable first; the same columns."""
    duals = customer_output.load(home, day, "offer_duals")
    if duals is None or "worth_per_unit" not in duals.columns:
        return pl.DataFrame()
    return duals.filter(pl.col("worth_per_unit") > 0).sort("worth_per_unit", descending=True)


def customers_skipped(home: Home, day: date) -> list[str]:
    """Why nothing was decided about customers, or no offers, or fewer than landed."""
    reason = customer_output.skipped(home, day)
    note = (customer_output.load_facts(home, day, "offers") or {}).get("note")
    return [
        *([f"customers: {reason}"] if reason else []),
        *([f"offers to customers: {note}"] if note and not reason else []),
    ]


def relaxation_shown(home: Home, day: date) -> list[str]:
    """What contradicted itself in the inputs."""
    return pl.read_parquet(plan_folder(home, day) / "relaxation.parquet")["message"].to_list()
