"""What really happened in the periods that orders arrived in, from the marts."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl

from npq_assets.contracts import DECISIONS
from npq_assets.evaluation.ledger import realized, settle
from npq_assets.periods import DAYS, period_of
from npq_assets.retail.inputs import PAIR
from npq_assets.retail.output import load_plan
from npq_assets.settings import Home
from npq_assets.storage import write_csv_for_people, write_parquet

LEDGER = DECISIONS["all.ledger"]
_OUTCOME = ["realized_cost", "hindsight_cost", "naive_realized_cost"]


def actuals(home: Home, arrivals: pl.DataFrame) -> pl.DataFrame:
    """The shelves at the openings in which orders arrived, and the demand they met.

    What was there is the count of that opening plus what landed as arriving then; where no arrival landed, the count of the
    next opening plus what was sold in between. Demand is known where the shelf was never empty.

    Args:
        home: The home.
        arrivals: site_id, product_id, arrives_on.

    Returns:
        Those that have ended and were counted: available, received, demand, known (see `evaluation.ledger.realized`).
    """
    days = DAYS[period_of(home)]
    counts = pl.read_parquet(home.mart("retail", "stock_position")).select(*PAIR, "counted_on", "on_hand")
    demand = pl.read_parquet(home.mart("retail", "demand")).select(*PAIR, "period_start", "quantity", "in_stock")
    orders = pl.read_parquet(home.mart("retail", "open_orders"))
    landed = (
        orders.select(*PAIR, pl.col("arrives_on").alias("on"), "quantity")
        .group_by(*PAIR, "on")
        .agg(pl.col("quantity").sum().alias("landed"))
    )
    wanted = arrivals.select(*PAIR, "arrives_on").unique()
    rows = (
        wanted.join(counts.rename({"counted_on": "arrives_on", "on_hand": "before"}), on=[*PAIR, "arrives_on"])
        .join(demand.rename({"period_start": "arrives_on"}), on=[*PAIR, "arrives_on"])
        .with_columns((pl.col("arrives_on") + timedelta(days=days)).alias("next"))
        .join(counts.rename({"counted_on": "next", "on_hand": "after"}), on=[*PAIR, "next"], how="left")
        .join(landed.rename({"on": "arrives_on"}), on=[*PAIR, "arrives_on"], how="left")
    )
    by_balance = pl.col("after") + pl.col("quantity")
    available = pl.coalesce(pl.col("before") + pl.col("landed"), by_balance, pl.col("before"))
    return rows.with_columns(available.alias("available")).select(
        *PAIR,
        "arrives_on",
        "available",
        (pl.col("available") - pl.col("before")).clip(lower_bound=0.0).alias("received"),
        pl.col("quantity").alias("demand"),
        pl.col("in_stock").alias("known"),
    )


def settle_accounts(home: Home) -> dict[date, int]:
    """Fills in what orders of earlier days did cost, wherever it is known by now; returns settled rows by as-of day."""
    settled = {}
    for place in sorted(home.decision_folder(LEDGER.domain, LEDGER.name).glob("as_of=*/*.parquet")):
        ledger = pl.read_parquet(place, hive_partitioning=False)
        open_rows = ledger.filter(
            (pl.col("kind") == "replenishment_orders") & pl.any_horizontal(pl.col(c).is_null() for c in _OUTCOME)
        )
        as_of = date.fromisoformat(place.parent.name.removeprefix("as_of="))
        plan = load_plan(home, as_of) if open_rows.height else None
        if plan is None:
            continue
        orders = plan[0].filter(pl.col("decision_id").is_in(open_rows["decision_id"].to_list()))
        outcome = realized(orders, actuals(home, orders))
        if outcome.height:
            filled = settle(ledger, outcome)
            write_parquet(filled, place)
            write_csv_for_people(filled, place.with_suffix(".csv"))
            settled[as_of] = outcome.height
    return settled
