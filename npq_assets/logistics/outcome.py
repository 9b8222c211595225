"""What became of routes: arrivals against the plan as trips land, and what deliveries did cost, for the ledger."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from npq_assets.evaluation.ledger import book, ledgers
from npq_assets.logistics.marts import opening
from npq_assets.logistics.output import load_plan
from npq_assets.optimization.route_problem import RouteCost
from npq_assets.settings import Home

_SLIGHT = 5.0
# Days after its own that a day's trips may still land.
_GRACE = 2
# Two prices of one delivery that are no farther apart are the same (money).
_SAME = 1e-9


def tracking(plan: dict[str, pl.DataFrame], legs: pl.DataFrame, until: datetime) -> pl.DataFrame:
    """Each planned stop beside what was driven until a moment.

    Args:
        plan: Frames of a stored plan.
        legs: The mart.
        until: The moment; what arrived later is not known yet.

    Returns:
        delivery_id, vehicle_id, driven_by, stop, planned, arrived, minutes_behind, state (`as planned`, `late`, `early`, `missing`:
        it should have arrived; `to come`).
    """
    seen = legs.filter(pl.col("arrived_at") < until).select(
        "delivery_id", pl.col("vehicle_id").alias("driven_by"), pl.col("arrived_at").alias("arrived")
    )
    behind = (pl.col("arrived") - pl.col("planned")).dt.total_seconds() / 60.0
    return (
        plan["routes"]
        .select("delivery_id", "vehicle_id", "stop", pl.col("arrives_at").alias("planned"))
        .join(seen, on="delivery_id", how="left")
        .with_columns(behind.alias("minutes_behind"))
        .with_columns(
            pl.when(pl.col("arrived").is_null() & (pl.col("planned") + timedelta(minutes=_SLIGHT) >= until))
            .then(pl.lit("to come"))
            .when(pl.col("arrived").is_null())
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


def tracking_of(home: Home, day: date) -> pl.DataFrame | None:
    """How the routes of the day before went, and those of the day as far as its trips have landed; None: nothing was planned.

    The clock of a day that is being driven is the last arrival that landed of it.

    Returns:
        day, and the columns of `tracking`.
    """
    legs = pl.read_parquet(home.mart("logistics", "legs"))
    parts = []
    for planned_for in (day - timedelta(days=1), day):
        plan = load_plan(home, planned_for)
        until = opening(day)
        if planned_for == day:
            ours = plan[0]["routes"].select("delivery_id") if plan else pl.DataFrame(schema={"delivery_id": pl.String})
            landed = legs.join(ours, on="delivery_id", how="semi").filter(pl.col("departed_at") >= until)
            if landed.is_empty():
                continue
            last: Any = landed["arrived_at"].max()
            until = last + timedelta(microseconds=1)
        if plan is not None:
            parts.append(tracking(plan[0], legs, until).select(pl.lit(planned_for).alias("day"), pl.all()))
    return pl.concat(parts) if parts else None


def realized(
    plan: dict[str, pl.DataFrame],
    legs: pl.DataFrame,
    vehicles: pl.DataFrame,
    deliveries: pl.DataFrame,
    *,
    over: bool = False,
) -> pl.DataFrame:
    """What a day's deliveries did cost, priced by the object that priced the plan.

    A delivery pays for its leg in km and time and for its share, by load, of the way home (as long as the way out) and of the
    vehicle's fixed cost, which is that of a day however many tours it drives on it; late arrivals pay by the minute after the
    window. A leg whose km did not land counts the km that were planned for it. Once the day is over, what no trip brought costs
    its `drop_cost`, planned or not. A warning has acted if a later time landed with the trip (`agreed_until`): it has its price
    less the lateness that this time spared; without one it spared nothing. What the planner's routes, or the best in hindsight,
    would have cost is not known, since nobody drove them; nobody warned costs nothing.

    What cannot be priced is left out, so that its account stays open: a vehicle without terms, a distance that is neither driven
    nor planned, a delivery that has to be made and was not.

    Args:
        plan: Frames of the plan.
        legs: The mart, of the day and those about it.
        vehicles: The mart.
        deliveries: The mart, of the day.
        over: Whether trips of the day that have not landed by now are taken never to land.

    Returns:
        decision_id, realized_cost, naive_realized_cost (empty but for warnings), hindsight_cost (empty).
    """
    planned = pl.concat(
        [
            plan["routes"].select("decision_id", "delivery_id", "km", pl.lit(True).alias("routed")),
            plan["dropped"].select(
                "decision_id", "delivery_id", pl.lit(None, pl.Float64).alias("km"), pl.lit(False).alias("routed")
            ),
        ]
    )
    warnings = (
        plan["alerts"]
        .drop_nulls("agreed_until")
        .select(pl.col("subject").alias("delivery_id"), "action_cost", pl.col("decision_id").alias("warning"))
    )
    driven = _driven(planned, legs, vehicles, deliveries, warnings)
    unknown = pl.lit(None, pl.Float64)
    parts = [
        driven.select("decision_id", "realized_cost", unknown.alias("naive_realized_cost")),
        driven.drop_nulls("warning").select(
            pl.col("warning").alias("decision_id"),
            pl.col("warned_cost").alias("realized_cost"),
            pl.lit(0.0).alias("naive_realized_cost"),
        ),
    ]
    if over:
        missing = _not_made(planned, legs, deliveries)
        never = warnings.join(missing, on="delivery_id", how="semi")
        parts += [
            missing.select(
                "decision_id", pl.col("drop_cost").alias("realized_cost"), unknown.alias("naive_realized_cost")
            ),
            never.select(
                pl.col("warning").alias("decision_id"),
                pl.lit(0.0).alias("realized_cost"),
                pl.lit(0.0).alias("naive_realized_cost"),
            ),
        ]
    found = pl.concat(parts).with_columns(unknown.alias("hindsight_cost"))
    return found.drop_nulls("realized_cost").sort("decision_id")


def _driven(
    planned: pl.DataFrame,
    legs: pl.DataFrame,
    vehicles: pl.DataFrame,
    deliveries: pl.DataFrame,
    warnings: pl.DataFrame,
) -> pl.DataFrame:
    """Legs of decisions: decision_id, realized_cost (empty: cannot be priced), warning, warned_cost."""
    tour = ["vehicle_id", "departed_at"]
    load = pl.col("quantity").clip(lower_bound=1e-9)
    # Shares and the way home are of the whole tour, also of stops that the plan did not know.
    rows = (
        legs.join(planned.select("delivery_id", pl.col("km").alias("planned_km")), on="delivery_id", how="left")
        .with_columns(pl.coalesce("km", "planned_km").alias("km"))
        .with_columns(
            (load / load.sum().over(tour)).alias("share"),
            pl.col("departed_at").n_unique().over("vehicle_id", pl.col("departed_at").dt.date()).alias("tours"),
            pl.col("km").sort_by("stop").first().over(tour).alias("home_km"),
            pl.col("drive_minutes").sort_by("stop").first().over(tour).alias("home_minutes"),
            ((pl.col("left_at") - pl.col("leg_started_at")).dt.total_seconds() / 60.0).alias("minutes"),
        )
        .join(planned.select("decision_id", "delivery_id"), on="delivery_id")
        .join(vehicles.select("vehicle_id", "fixed_cost", "cost_per_km", "cost_per_hour"), on="vehicle_id", how="left")
        .join(deliveries.select("delivery_id", "late_cost_per_minute"), on="delivery_id")
        .join(warnings, on="delivery_id", how="left")
        .with_columns(pl.max_horizontal("due_at", "agreed_until").alias("until"))
        .sort("decision_id")
    )
    late_by, late_by_agreed = (
        (rows["arrived_at"] - rows[name]).dt.total_seconds().to_numpy() / 60.0 for name in ("due_at", "until")
    )
    costs: list[float | None] = []
    warned: list[float] = []
    for k, row in enumerate(rows.iter_rows(named=True)):
        late, agreed = (
            float(RouteCost.late(row["late_cost_per_minute"], by[k], 0.0)) for by in (late_by, late_by_agreed)
        )
        acted = row["warning"] is not None and row["agreed_until"] is not None
        warned.append(row["action_cost"] - (late - agreed) if acted else 0.0)
        if row["cost_per_km"] is None or row["km"] is None or row["home_km"] is None:
            costs.append(None)
            continue
        cost = RouteCost(row["fixed_cost"] / row["tours"], row["cost_per_km"], row["cost_per_hour"] / 60.0)
        home = float(cost.value(row["home_km"], row["home_minutes"]))
        own = float(RouteCost(0.0, cost.per_km, cost.per_minute).value(row["km"], row["minutes"]))
        # What a warning spared is the warning's account; a time agreed on without one is the delivery's own.
        costs.append(own + row["share"] * home + (late if row["warning"] is not None else agreed))
    return rows.select("decision_id", "warning").with_columns(
        pl.Series("realized_cost", costs, dtype=pl.Float64), pl.Series("warned_cost", warned, dtype=pl.Float64)
    )


def _not_made(planned: pl.DataFrame, legs: pl.DataFrame, deliveries: pl.DataFrame) -> pl.DataFrame:
    """Decisions whose delivery no trip brought: decision_id, delivery_id, drop_cost.

    A depot none of whose trips have landed says nothing of what it drove; if all that it planned was dropped, any trip will do.
    """
    rows = planned.join(deliveries.select("delivery_id", "depot_id", "drop_cost"), on="delivery_id")
    heard = set(legs.join(deliveries.select("delivery_id", "depot_id"), on="delivery_id")["depot_id"].to_list())
    sends = set(rows.filter("routed")["depot_id"].to_list())
    silent = [
        name for name in rows["depot_id"].unique().to_list() if name not in heard and (name in sends or not heard)
    ]
    return rows.filter(~pl.col("depot_id").is_in(silent)).join(legs, on="delivery_id", how="anti")


def settle_accounts(home: Home, upto: date) -> dict[date, int]:
    """Fills in what deliveries of earlier days did cost, as far as their trips have landed; rows settled by as-of day.

    A delivery that was settled as not made is settled again, with its warning, when a trip that brought it lands within 31 days;
    so are the other stops of a tour of which a stop lands late, since they share its vehicle and way home. A stop that belongs to
    another day, as on a tour over midnight, opens them again within the days in which trips may still land.
    """
    settled: dict[date, int] = {}
    places = [home.mart("logistics", name) for name in ("legs", "vehicles", "deliveries")]
    if not all(place.exists() for place in places):
        return settled
    legs = vehicles = deliveries = None
    for day, place in ledgers(home):
        if day >= upto or day < upto - timedelta(days=31):
            continue
        ledger = pl.read_parquet(place, hive_partitioning=False)
        ours = ledger.filter((pl.col("domain") == "logistics") & pl.col("kind").is_in(["routes", "alerts"]))
        if ours.is_empty():
            continue
        if legs is None:
            legs, vehicles, deliveries = (pl.read_parquet(p) for p in places)
        assert vehicles is not None and deliveries is not None
        # A delivery belongs to the day of its window, whenever its vehicle left; landed anew for another day it was not made.
        window = (pl.col("ready_at") >= opening(day)) & (pl.col("ready_at") < opening(day + timedelta(days=1)))
        known = pl.col("arrived_at") < opening(upto)
        # Tours over midnight are shared by the stops of both days, so legs are taken from around the day.
        near = pl.col("departed_at").is_between(
            opening(day - timedelta(days=1)), opening(day + timedelta(days=_GRACE + 1))
        )
        driven, wanted = legs.filter(near & known), deliveries.filter(window)
        waiting = ours.filter(pl.col("realized_cost").is_null())
        prices = driven.join(wanted, on="delivery_id").select("drop_cost").drop_nulls().to_series()
        # Cheap to ask: few costs of what was driven are a drop cost to the last bit.
        shared = _with_strangers(driven, wanted) if upto <= day + timedelta(days=_GRACE + 1) else driven.clear()
        if waiting.is_empty() and shared.is_empty() and not ours["realized_cost"].is_in(prices.implode()).any():
            continue
        plan = load_plan(home, day)
        if plan is None:
            continue
        outcome = realized(plan[0], driven, vehicles, wanted, over=upto > day + timedelta(days=_GRACE))
        open_again = _open_again(plan[0], ours, driven, wanted)
        routes = plan[0]["routes"].join(shared, on="delivery_id", how="semi")["decision_id"]
        stood = ledger.select("decision_id", pl.col("realized_cost").alias("stood"))
        change = pl.col("realized_cost") - pl.col("stood")
        outcome = outcome.join(stood, on="decision_id").filter(
            (
                pl.col("decision_id").is_in(waiting["decision_id"].implode())
                | pl.col("decision_id").is_in(open_again.implode())
                # A stop more leaves less to the others; a day that is run again may know fewer of them, which is no news.
                | (pl.col("decision_id").is_in(routes.implode()) & (change < 0))
            )
            & (pl.col("stood").is_null() | (change.abs() > _SAME))
        )
        if booked := book(place, ledger, outcome.drop("stood")):
            settled[day] = booked
    return settled


def _with_strangers(legs: pl.DataFrame, deliveries: pl.DataFrame) -> pl.DataFrame:
    """Legs of the day's deliveries on tours that also bring what is not the day's."""
    tour = ["vehicle_id", "departed_at"]
    strangers = legs.join(deliveries, on="delivery_id", how="anti").select(tour).unique()
    return legs.join(deliveries, on="delivery_id", how="semi").join(strangers, on=tour, how="semi")


def _open_again(
    plan: dict[str, pl.DataFrame], ledger: pl.DataFrame, legs: pl.DataFrame, deliveries: pl.DataFrame
) -> pl.Series:
    """Decisions whose account a trip that landed since opens again.

    A delivery is news if it was driven and its account is open, or stands at its drop cost: it was taken for not made. Its warning
    is news with it, and what else its tour brought.
    """
    planned = pl.concat([plan[name].select("decision_id", "delivery_id") for name in ("routes", "dropped")])
    rows = (
        legs.join(planned, on="delivery_id")
        .join(deliveries.select("delivery_id", "drop_cost"), on="delivery_id")
        .join(ledger.select("decision_id", "realized_cost"), on="decision_id")
    )
    news = rows.filter(
        pl.col("realized_cost").is_null() | ((pl.col("realized_cost") - pl.col("drop_cost")).abs() <= _SAME)
    )
    shared = rows.join(news.select("vehicle_id", "departed_at").unique(), on=["vehicle_id", "departed_at"], how="semi")
    warned = (
        plan["alerts"]
        .drop_nulls("agreed_until")
        .join(news.select(pl.col("delivery_id").alias("subject")), on="subject", how="semi")
    )
    return pl.concat([shared["decision_id"], warned["decision_id"]])
