"""What really happened in the periods that orders arrived in, from the marts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from npq_assets.evaluation.ledger import EXPECTED, OUTCOME, book, ledgers, override_credit, realized
from npq_assets.periods import DAYS, period_of
from npq_assets.retail.customer_link import link_of
from npq_assets.retail.inputs import PAIR
from npq_assets.retail.output import load_forecast, load_plan
from npq_assets.settings import Home
from npq_assets.storage import write_parquet

_CREDIT = {
    "decision_id": pl.String,
    "override_realized_cost": pl.Float64,
    "hindsight_cost": pl.Float64,
    "basis": pl.String,
    "engine_realized_cost": pl.Float64,
    "demand": pl.Float64,
    "credit": pl.Float64,
}


@dataclass(frozen=True)
class Facts:
    """What landed of shelves and sales, read once for all days.

    Attributes:
        days: Days in a period.
        counts: site_id, product_id, counted_on, on_hand.
        demand: site_id, product_id, period_start, quantity, in_stock.
        landed: site_id, product_id, on, landed: units that landed as arriving on a day.
        upto: Periods that ended before this day opened are over: the day that is decided for, or what landed latest.
    """

    days: int
    counts: pl.DataFrame
    demand: pl.DataFrame
    landed: pl.DataFrame
    upto: date

    @classmethod
    def read(cls, home: Home, since: date, day: date) -> Facts:
        """Reads the marts of a home, from a day on; all periods before `day` are over."""
        counts = (
            pl.scan_parquet(home.mart("retail", "stock_position"))
            .filter(pl.col("counted_on") >= since)
            .select(*PAIR, "counted_on", "on_hand")
            .collect()
        )
        demand = (
            pl.scan_parquet(home.mart("retail", "demand"))
            .filter((pl.col("period_start") >= since) & pl.col("landed"))
            .select(*PAIR, "period_start", "quantity", "in_stock")
            .collect()
        )
        landed = (
            pl.scan_parquet(home.mart("retail", "open_orders"))
            .filter(pl.col("arrives_on") >= since)
            .group_by(*PAIR, pl.col("arrives_on").alias("on"))
            .agg(pl.col("quantity").sum().alias("landed"))
            .collect()
        )
        # An earlier day that is run again may look at facts that landed since.
        latest = [d for d in (counts["counted_on"].max(), demand["period_start"].max()) if isinstance(d, date)]
        return cls(DAYS[period_of(home)], counts, demand, landed, max([day, *latest]))


def actuals(facts: Facts, arrivals: pl.DataFrame) -> pl.DataFrame:
    """The shelves at the openings in which orders arrived, and the demand they met.

    What was there is the count of that opening plus what landed as arriving then; where no arrival landed, the count of the
    next opening plus what was sold in between. Demand is known where the shelf was never empty; where it was, the row is left out
    until its period has ended, since more may be sold.

    Args:
        facts: What landed.
        arrivals: site_id, product_id, arrives_on.

    Returns:
        Those that have ended and were counted: available, received, demand, known (see `evaluation.ledger.realized`).
    """
    rows = (
        arrivals.select(*PAIR, "arrives_on")
        .unique()
        .join(facts.counts.rename({"counted_on": "arrives_on", "on_hand": "before"}), on=[*PAIR, "arrives_on"])
        .join(facts.demand.rename({"period_start": "arrives_on"}), on=[*PAIR, "arrives_on"])
        .with_columns((pl.col("arrives_on") + timedelta(days=facts.days)).alias("next"))
        .join(facts.counts.rename({"counted_on": "next", "on_hand": "after"}), on=[*PAIR, "next"], how="left")
        .join(facts.landed.rename({"on": "arrives_on"}), on=[*PAIR, "arrives_on"], how="left")
    )
    rows = rows.filter(pl.col("in_stock") | (pl.col("next") <= facts.upto))
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


def scenarios_of(home: Home, as_of: date, orders: pl.DataFrame, *, engine: bool = False) -> pl.DataFrame | None:
    """Demand of the periods that orders arrive in, as it was forecast when they were decided, offers included.

    Args:
        home: Where the forecast of the day is stored.
        as_of: The day.
        orders: decision_id, site_id, product_id, arrives_on.
        engine: Whether the engine's own scenarios follow those that planners' numbers moved.

    Returns:
        decision_id, demand (array of S; 2 S with the engine's); None if no forecast is stored.
    """
    forecast = load_forecast(home, as_of)
    if forecast is None:
        return None
    pairs = forecast.frame.select("unique_id", *PAIR).unique().sort("unique_id")
    if pairs.height != forecast.scenarios.shape[0]:
        return None
    days = DAYS[period_of(home)]
    asked = (
        orders.select("decision_id", *PAIR, "arrives_on")
        .join(pairs.with_row_index("row"), on=PAIR)
        .with_columns(((pl.col("arrives_on") - as_of).dt.total_days() // days).alias("step"))
        .filter(pl.col("step").is_between(0, forecast.scenarios.shape[2] - 1))
        .sort("decision_id")
    )
    row, step, link = asked["row"].to_numpy(), asked["step"].to_numpy(), link_of(home, as_of)
    sides = [forecast, forecast.engine] if engine else [forecast]
    mine, at = np.unique(row, return_inverse=True)  # a copy of all scenarios is large
    drawn = [link.added(pairs[mine], as_of, days, side.scenarios[mine])[at, :, step] for side in sides]
    values = np.concatenate(drawn, axis=1)
    return asked.select("decision_id").with_columns(
        pl.Series("demand", values, dtype=pl.Array(pl.Float64, values.shape[1]))
    )


def _ran_out(orders: pl.DataFrame, actual: pl.DataFrame) -> pl.DataFrame:
    return orders.join(actual.filter(~pl.col("known")), on=[*PAIR, "arrives_on"], how="semi")


def settle_accounts(home: Home, day: date) -> dict[date, int]:
    """Fills in what orders of earlier days did cost, wherever their periods have ended; returns settled rows by as-of day.

    Args:
        home: The home.
        day: The day that is decided for: periods before it are over.
    """
    settled: dict[date, int] = {}
    found = ledgers(home)
    if not found or not home.mart("retail", "stock_position").exists():
        return settled
    facts = Facts.read(home, found[0][0], day)
    for as_of, place in found:
        ledger = pl.read_parquet(place, hive_partitioning=False)
        open_rows = ledger.filter(
            (pl.col("kind") == "replenishment_orders") & pl.any_horizontal(pl.col(c).is_null() for c in OUTCOME[:3])
        )
        plan = load_plan(home, as_of) if open_rows.height else None
        if plan is None:
            continue
        orders = plan[0].filter(pl.col("decision_id").is_in(open_rows["decision_id"].to_list()))
        actual = actuals(facts, orders)
        empty = _ran_out(orders, actual)
        outcome = realized(orders, actual, scenarios_of(home, as_of, empty) if empty.height else None)
        if booked := book(place, ledger, outcome):
            settled[as_of] = booked
    return settled


def _expected_before(place: Path) -> pl.DataFrame:
    """Credits of overrides that were settled by expectation: the columns of `override_credit`; none of files without a basis."""
    none = pl.DataFrame(schema=_CREDIT)
    if not place.exists():
        return none
    rows = pl.read_parquet(place, hive_partitioning=False)
    if "basis" not in rows.columns:
        return none
    return rows.filter((pl.col("basis") == EXPECTED) & pl.col("credit").is_not_null()).select(list(_CREDIT))


def settle_overrides(home: Home, day: date) -> int:
    """Credits or debits planners' overrides whose period has landed; returns how many are settled.

    Writes evaluations/retail/overrides/as_of=…/overrides.parquet: the plan's rows of overridden pairs and, where known, what
    the override's and the engine's order did cost, on which basis, and the credit.
    """
    places = {
        date.fromisoformat(place.parent.name.removeprefix("as_of=")): place
        for place in sorted((home.root / "plans" / "retail").glob("as_of=*/overrides.parquet"))
        if (place.parent / "plan.json").exists()
    }
    made = {of: pl.read_parquet(place, hive_partitioning=False) for of, place in places.items()}
    made = {of: frame for of, frame in made.items() if frame.height}
    if not made:
        return 0
    facts = Facts.read(home, min(made), day)
    settled = 0
    for of, overrides in made.items():
        place = home.root / "evaluations" / "retail" / "overrides" / f"as_of={of.isoformat()}" / "overrides.parquet"
        actual, kept = actuals(facts, overrides), _expected_before(place)
        # A forecast is large, and may be another one by now: what it has priced stays.
        empty = _ran_out(overrides, actual).join(kept, on="decision_id", how="anti")
        outcome = override_credit(
            overrides, actual, scenarios_of(home, of, empty, engine=True) if empty.height else None
        )
        kept = kept.join(outcome, on="decision_id", how="anti").join(overrides, on="decision_id", how="semi")
        outcome = pl.concat([outcome, kept.select(outcome.columns)]).sort("decision_id")
        settled += outcome.height
        write_parquet(overrides.join(outcome, on="decision_id", how="left").sort("decision_id"), place)
    return settled
