"""What became of routes: arrivals against the plan as trips land, and what deliveries did cost, for the ledger."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl

from npq_assets.contracts import DECISIONS
from npq_assets.evaluation.ledger import settle
from npq_assets.logistics.inputs import opening
from npq_assets.logistics.output import load_plan
from npq_assets.optimization.routing import RouteCost
from npq_assets.settings import Home
from npq_assets.storage import write_csv_for_people, write_parquet

LEDGER = DECISIONS["all.ledger"]
_SLIGHT = 5.0


def tracking(plan: dict[str, pl.DataFrame], legs: pl.DataFrame, now: date) -> pl.DataFrame:
    """Each planned stop beside what was driven before `now` opened.

    Args:
        plan: Frames of a stored plan.
        legs: The mart.
        now: The day that is about to open.

    Returns:
        delivery_id, vehicle_id, driven_by, stop, planned, arrived, minutes_behind, state (`as planned`, `late`, `early`,
        `missing`).
    """
    seen = legs.filter(pl.col("arrived_at") < opening(now)).select(
        "delivery_id", pl.col("vehicle_id").alias("driven_by"), pl.col("arrived_at").alias("arrived")
    )
    behind = (pl.col("arrived") - pl.col("planned")).dt.total_seconds() / 60.0
    return (
        plan["routes"]
        .select("delivery_id", "vehicle_id", "stop", pl.col("arrives_at").alias("planned"))
        .join(seen, on="delivery_id", how="left")
        .with_columns(behind.alias("minutes_behind"))
        .with_columns(
            pl.when(pl.col("arrived").is_null())
            .then(pl.lit("missing"))
            .when(pl.col("minutes_behind") > _SLIGHT)
            .then(pl.lit("late"))
            .when(pl.col("minutes_behind") < -_SLIGHT)
            .then(pl.lit("early"))
            .otherwise(pl.lit("as planned"))
            .alias("state")
        )
        .sort("vehicle_id", "stop")
    )


def realized(
    plan: dict[str, pl.DataFrame], legs: pl.DataFrame, vehicles: pl.DataFrame, deliveries: pl.DataFrame
) -> pl.DataFrame:
    """What a day's deliveries did cost, priced by the object that priced the plan.

    A delivery pays for its leg in km and time and for its share, by load, of the vehicle's fixed cost and way home (as long as
    the way out); late arrivals pay by the minute after the window. A warning that was acted on has its price less the lateness
    that the time agreed on spared. What the planner's routes, or the best in hindsight, would have cost is not known, since
    nobody drove them; nobody warned costs nothing.

    Returns:
        decision_id, realized_cost, naive_realized_cost (empty but for warnings), hindsight_cost (empty).
    """
    rows = plan["routes"].select("decision_id", "delivery_id").join(legs, on="delivery_id", how="inner")
    nothing = pl.DataFrame(
        schema={"decision_id": pl.String, "realized_cost": pl.Float64, "naive_realized_cost": pl.Float64,
                "hindsight_cost": pl.Float64}
    )  # fmt: skip
    if rows.is_empty():
        return nothing
    agreed = (
        plan["alerts"]
        .drop_nulls("agreed_until")
        .select(
            pl.col("subject").alias("delivery_id"),
            "agreed_until",
            "action_cost",
            pl.col("decision_id").alias("warning"),
        )
    )
    tour = ["vehicle_id", "departed_at"]
    rows = (
        rows.join(vehicles.select("vehicle_id", "fixed_cost", "cost_per_km", "cost_per_hour"), on="vehicle_id")
        .join(deliveries.select("delivery_id", "late_cost_per_minute"), on="delivery_id")
        .join(agreed, on="delivery_id", how="left")
        .with_columns(
            ((pl.col("left_at") - pl.col("leg_started_at")).dt.total_seconds() / 60.0).alias("minutes"),
            pl.max_horizontal("due_at", "agreed_until").alias("until"),
            (
                pl.col("quantity").clip(lower_bound=1e-9) / pl.col("quantity").clip(lower_bound=1e-9).sum().over(tour)
            ).alias("share"),
            pl.col("km").fill_null(0.0).sort_by("stop").first().over(tour).alias("home_km"),
            pl.col("drive_minutes").sort_by("stop").first().over(tour).alias("home_minutes"),
        )
        .sort("decision_id")
    )
    costs, spared = np.zeros(rows.height), np.zeros(rows.height)
    late_by, late_by_agreed = (
        (rows["arrived_at"] - rows[name]).dt.total_seconds().to_numpy() / 60.0 for name in ("due_at", "until")
    )
    for k, row in enumerate(rows.iter_rows(named=True)):
        cost = RouteCost(row["fixed_cost"], row["cost_per_km"], row["cost_per_hour"] / 60.0)
        home = float(cost.value(row["home_km"], row["home_minutes"]))
        own = RouteCost(0.0, cost.per_km, cost.per_minute).value(row["km"] or 0.0, row["minutes"])
        late = float(RouteCost.late(row["late_cost_per_minute"], late_by[k], 0.0))
        costs[k] = float(own) + row["share"] * home + late
        spared[k] = late - float(RouteCost.late(row["late_cost_per_minute"], late_by_agreed[k], 0.0))
    warned = rows.with_columns((pl.col("action_cost") - pl.Series("spared", spared)).alias("realized_cost"))
    unknown = pl.lit(None, pl.Float64)
    return pl.concat(
        [
            rows.select("decision_id", pl.Series("realized_cost", costs), unknown.alias("naive_realized_cost")),
            warned.drop_nulls("warning").select(
                pl.col("warning").alias("decision_id"), "realized_cost", pl.lit(0.0).alias("naive_realized_cost")
            ),
        ]
    ).with_columns(unknown.alias("hindsight_cost"))


def settle_accounts(home: Home, upto: date) -> dict[date, int]:
    """Fills in what deliveries of earlier days did cost, as far as their trips have landed; rows settled by as-of day."""
    settled: dict[date, int] = {}
    places = [home.mart("logistics", name) for name in ("legs", "vehicles", "deliveries")]
    if not all(place.exists() for place in places):
        return settled
    legs = vehicles = deliveries = None
    for place in sorted(home.decision_folder(LEDGER.domain, LEDGER.name).glob("as_of=*/*.parquet")):
        day = date.fromisoformat(place.parent.name.removeprefix("as_of="))
        if day >= upto or day < upto - timedelta(days=31):
            continue
        ledger = pl.read_parquet(place, hive_partitioning=False)
        waiting = ledger.filter(
            (pl.col("domain") == "logistics")
            & pl.col("kind").is_in(["routes", "alerts"])
            & pl.col("realized_cost").is_null()
        )
        plan = load_plan(home, day) if waiting.height else None
        if plan is None:
            continue
        if legs is None:
            legs, vehicles, deliveries = (pl.read_parquet(p) for p in places)
        assert vehicles is not None and deliveries is not None
        window = (pl.col("departed_at") >= opening(day)) & (pl.col("departed_at") < opening(day + timedelta(days=1)))
        outcome = realized(plan[0], legs.filter(window), vehicles, deliveries)
        outcome = outcome.filter(pl.col("decision_id").is_in(waiting["decision_id"].implode()))
        if outcome.height:
            filled = settle(ledger, outcome)
            write_parquet(filled, place)
            write_csv_for_people(filled, place.with_suffix(".csv"))
            settled[day] = outcome.height
    return settled
