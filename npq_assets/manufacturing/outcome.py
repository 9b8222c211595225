"""What plans really cost once production landed: the horizon's stock, setups, overtime and lateness, by product.

A plan answers for its whole horizon. It is settled when that has passed, with what the plant did under this plan and those
that replaced it: money by the same rates as the plan.
"""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl

from npq_assets.evaluation.ledger import book, ledgers
from npq_assets.manufacturing.inputs import YEARLY_HOLDING, late_rate
from npq_assets.manufacturing.output import load_plan
from npq_assets.manufacturing.plan import HORIZON
from npq_assets.periods import DAYS, period_of
from npq_assets.settings import Home


def settle_plans(home: Home, known_to: date) -> dict[date, int]:
    """Fills in what plans did cost whose horizon ended before `known_to` opened; returns settled rows by as-of day."""
    settled: dict[date, int] = {}
    period = period_of(home)
    span = timedelta(days=HORIZON[period] * DAYS[period])
    for as_of, place in ledgers(home):
        if as_of + span > known_to:
            continue
        ledger = pl.read_parquet(place, hive_partitioning=False)
        waiting = ledger.filter((pl.col("kind") == "production_plan") & pl.col("realized_cost").is_null())
        plan = load_plan(home, as_of) if waiting.height else None
        if plan is None:
            continue
        outcome = realized_cost(home, as_of, as_of + span).join(
            plan.accounts.select("product_id", "decision_id"), on="product_id"
        )
        if outcome.height:
            rows = outcome.select(
                "decision_id",
                pl.col("cost").alias("realized_cost"),
                pl.lit(None, pl.Float64).alias("hindsight_cost"),
                pl.lit(None, pl.Float64).alias("naive_realized_cost"),
            )
            settled[as_of] = book(place, ledger, rows)
    return settled


def realized_cost(home: Home, first: date, end: date) -> pl.DataFrame:
    """What production from `first` to the day before `end` did cost: product_id, setups, overtime, stock, lateness, cost.

    Only products whose stock was counted at the end of every period: what lay there in between is not guessed. None where
    deliveries are never landed: whether anything was late is not known.
    """
    empty = pl.DataFrame(schema={"product_id": pl.String, "cost": pl.Float64})
    step = DAYS[period_of(home)]
    ends = [first + timedelta(days=k) for k in range(step, (end - first).days + 1, step)]
    orders = pl.read_parquet(home.mart("manufacturing", "customer_orders"))
    if orders.height and not orders.filter(pl.col("delivered_on").is_not_null()).height:
        return empty
    products = pl.read_parquet(home.mart("common", "products")).select(
        "product_id",
        "unit_cost",
        pl.coalesce("holding_cost", pl.col("unit_cost") * YEARLY_HOLDING * step / 365).alias("holding_cost"),
    )
    routings = pl.read_parquet(home.mart("manufacturing", "routings"))
    made = set(routings["product_id"])
    stock = (
        pl.read_parquet(home.mart("manufacturing", "plant_stock"))
        .filter(pl.col("counted_on").is_in(ends) & pl.col("product_id").is_in(list(made)))
        .join(products, on="product_id")
        .group_by("product_id")
        .agg((pl.col("on_hand") * pl.col("holding_cost")).sum().alias("stock"), pl.len().alias("counts"))
        .filter(pl.col("counts") == len(ends))
        .drop("counts")
    )
    log = pl.read_parquet(home.mart("manufacturing", "production_day")).filter(
        (pl.col("produced_on") >= first) & (pl.col("produced_on") < end)
    )
    costs = routings.group_by("product_id", "machine_id").agg(
        pl.col("setup_cost").max(), pl.col("family_setup_cost").max()
    )
    setups = (
        log.filter(pl.col("setups") > 0)
        .join(costs, on=["product_id", "machine_id"])
        .join(
            routings.group_by("product_id", "machine_id").agg(
                pl.col("setup_minutes").max().alias("own"), pl.col("family_setup_minutes").max()
            ),
            on=["product_id", "machine_id"],
        )
        # A setup longer than the product's own was one of the family as well.
        .with_columns(
            pl.when(pl.col("setup_minutes") > pl.col("own") + 0.5)
            .then("family_setup_cost")
            .otherwise(0.0)
            .alias("more")
        )
        .group_by("product_id")
        .agg((pl.col("setup_cost") + pl.col("more")).sum().alias("setups"))
    )
    machines = pl.read_parquet(home.mart("manufacturing", "machines"))
    calendar = pl.read_parquet(home.mart("manufacturing", "machine_calendar")).select(
        "machine_id", pl.col("calendar_on").alias("produced_on"), "minutes"
    )
    minutes = pl.col("run_minutes") + pl.col("setup_minutes")
    overtime = (
        log.with_columns(
            minutes.alias("used"),
            (minutes + pl.col("down_minutes")).sum().over("machine_id", "produced_on").alias("all"),
        )
        .join(machines.select("machine_id", "minutes_per_day", "overtime_cost_per_minute"), on="machine_id")
        .join(calendar, on=["machine_id", "produced_on"], how="left")
        .with_columns((pl.col("all") - pl.coalesce("minutes", "minutes_per_day")).clip(lower_bound=0.0).alias("over"))
        .group_by("product_id")
        .agg(
            (
                pl.col("over")
                * pl.col("used")
                / pl.col("all").clip(lower_bound=1e-9)
                * pl.col("overtime_cost_per_minute")
            )
            .sum()
            .alias("overtime")
        )
    )
    orders = orders.filter(pl.col("due_on") < end).join(products, on="product_id", how="left")
    done = pl.min_horizontal(pl.coalesce("delivered_on", pl.lit(end)), pl.lit(end))
    late = (
        orders.with_columns(
            (done - pl.max_horizontal("due_on", pl.lit(first))).dt.total_days().clip(lower_bound=0).alias("days")
        )
        .group_by("product_id")
        # Orders without a cost of lateness have the one that the plan assumed.
        .agg((pl.col("days") * pl.col("quantity") * late_rate().fill_null(0.0)).sum().alias("lateness"))
    )
    found = stock
    for part in (setups, overtime, late):
        found = found.join(part, on="product_id", how="left")
    kinds = ("setups", "overtime", "stock", "lateness")
    return (
        found.with_columns(pl.col(kinds).fill_null(0.0))
        .with_columns(pl.sum_horizontal(kinds).alias("cost"))
        .sort("product_id")
    )
