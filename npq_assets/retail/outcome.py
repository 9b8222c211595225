"""What really happened in the periods that orders arrived in, from the marts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from npq_assets.contracts import DECISIONS
from npq_assets.evaluation.ledger import override_credit, realized, settle
from npq_assets.periods import DAYS, period_of
from npq_assets.retail.inputs import PAIR
from npq_assets.retail.output import load_plan
from npq_assets.settings import Home
from npq_assets.storage import write_csv_for_people, write_parquet

LEDGER = DECISIONS["all.ledger"]
_OUTCOME = ["realized_cost", "hindsight_cost", "naive_realized_cost"]


@dataclass(frozen=True)
class Facts:
    """What landed of shelves and sales, read once for all days.

    Attributes:
        days: Days in a period.
        counts: site_id, product_id, counted_on, on_hand.
        demand: site_id, product_id, period_start, quantity, in_stock.
        landed: site_id, product_id, on, landed: units that landed as arriving on a day.
    """

    days: int
    counts: pl.DataFrame
    demand: pl.DataFrame
    landed: pl.DataFrame

    @classmethod
    def read(cls, home: Home, since: date) -> Facts:
        """Reads the marts of a home, from a day on."""
        return cls(
            DAYS[period_of(home)],
            pl.scan_parquet(home.mart("retail", "stock_position"))
            .filter(pl.col("counted_on") >= since)
            .select(*PAIR, "counted_on", "on_hand")
            .collect(),
            pl.scan_parquet(home.mart("retail", "demand"))
            .filter(pl.col("period_start") >= since)
            .select(*PAIR, "period_start", "quantity", "in_stock")
            .collect(),
            pl.scan_parquet(home.mart("retail", "open_orders"))
            .filter(pl.col("arrives_on") >= since)
            .group_by(*PAIR, pl.col("arrives_on").alias("on"))
            .agg(pl.col("quantity").sum().alias("landed"))
            .collect(),
        )


def actuals(facts: Facts, arrivals: pl.DataFrame) -> pl.DataFrame:
    """The shelves at the openings in which orders arrived, and the demand they met.

    What was there is the count of that opening plus what landed as arriving then; where no arrival landed, the count of the
    next opening plus what was sold in between. Demand is known where the shelf was never empty.

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
    settled: dict[date, int] = {}
    places = sorted(home.decision_folder(LEDGER.domain, LEDGER.name).glob("as_of=*/*.parquet"))
    if not places or not home.mart("retail", "stock_position").exists():
        return settled
    days = {place: date.fromisoformat(place.parent.name.removeprefix("as_of=")) for place in places}
    facts = Facts.read(home, min(days.values()))
    for place, as_of in days.items():
        ledger = pl.read_parquet(place, hive_partitioning=False)
        open_rows = ledger.filter(
            (pl.col("kind") == "replenishment_orders") & pl.any_horizontal(pl.col(c).is_null() for c in _OUTCOME)
        )
        plan = load_plan(home, as_of) if open_rows.height else None
        if plan is None:
            continue
        orders = plan[0].filter(pl.col("decision_id").is_in(open_rows["decision_id"].to_list()))
        outcome = realized(orders, actuals(facts, orders))
        if outcome.height:
            filled = settle(ledger, outcome)
            write_parquet(filled, place)
            write_csv_for_people(filled, place.with_suffix(".csv"))
            settled[as_of] = outcome.height
    return settled


def settle_overrides(home: Home) -> int:
    """Credits or debits planners' overrides whose period has landed; returns how many are settled.

    Writes evaluations/retail/overrides/as_of=…/overrides.parquet: the plan's rows of overridden pairs and, where known, what
    the override's and the engine's order did cost, and the credit.
    """
    places = {
        date.fromisoformat(place.parent.name.removeprefix("as_of=")): place
        for place in sorted((home.root / "plans" / "retail").glob("as_of=*/overrides.parquet"))
        if (place.parent / "plan.json").exists()
    }
    made = {day: pl.read_parquet(place, hive_partitioning=False) for day, place in places.items()}
    made = {day: frame for day, frame in made.items() if frame.height}
    if not made:
        return 0
    facts = Facts.read(home, min(made))
    settled = 0
    for day, overrides in made.items():
        outcome = override_credit(overrides, actuals(facts, overrides))
        settled += outcome.height
        place = home.root / "evaluations" / "retail" / "overrides" / f"as_of={day.isoformat()}" / "overrides.parquet"
        write_parquet(overrides.join(outcome, on="decision_id", how="left").sort("decision_id"), place)
    return settled
