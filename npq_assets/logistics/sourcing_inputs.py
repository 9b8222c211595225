"""What sourcing may look at: the marts and decisions, cut to what was known before the as-of day opened.

The only place that decides what was known when about orders, production plans and the stock of plants. What the flow costs and how
it is decided does not belong here (see `plan`), nor how places are reached (see `ways`).
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from npq_assets.contracts import DECISIONS
from npq_assets.logistics.marts import mart, opening
from npq_assets.logistics.tour_costs import tour_costs
from npq_assets.logistics.ways import Ways
from npq_assets.publishing import read_decisions
from npq_assets.settings import Home

_USUAL_DAYS = 28
_AHEAD = 7


def read_sourcing(
    home: Home,
    sites: pl.DataFrame,
    vehicles: pl.DataFrame,
    deliveries: pl.DataFrame,
    as_of: date,
    ways: Ways,
    notes: list[str],
    slower: float = 1.0,
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Sources, lanes and the demand of sites over the next seven days, as known before `as_of` opened.

    Args:
        home: The home.
        sites: The mart.
        vehicles: Of the day, as planned with: depot_id, capacity, costs, shifts in minutes.
        deliveries: The mart; from those of the past the usual day of a site is taken.
        as_of: The day.
        ways: How to get from place to place.
        notes: Gets what could not be computed, with the reason.
        slower: How much longer legs take on average than the ways say.

    Returns:
        The frames `sources`, `lanes` and `demand` of `LogisticsInputs`, without rows if there is nothing to decide.
    """
    empty = (
        pl.DataFrame(schema={"source_id": pl.String}),
        pl.DataFrame(schema={"from_id": pl.String, "to_id": pl.String}),
        pl.DataFrame(schema={"site_id": pl.String}),
    )
    terms = mart(home, "depot_terms").sort("site_id")
    if terms.is_empty():
        notes.append("logistics.depot_terms: no rows, so sites keep their sources; land them to get sourcing decided")
        return empty
    where = sites.drop_nulls(["latitude", "longitude"]).select(
        "site_id", "kind", "latitude", "longitude", pl.lit(None, pl.String).alias("node_id")
    )
    sources = terms.join(where, on="site_id", how="inner").sort("site_id")
    demand = _site_demand(home, deliveries, as_of)
    demand = demand.filter(~pl.col("site_id").is_in(sources["site_id"].implode()))
    lost = sorted({*terms["site_id"], *demand["site_id"]} - set(where["site_id"].to_list()))
    if lost:
        notes.append(
            f"sourcing: {', '.join(lost[:3])}{' …' if lost[3:] else ''} have no coordinates in common.sites, so nothing is decided "
            "about them; land their places"
        )
    demand = demand.join(where.select("site_id"), on="site_id", how="semi").sort("site_id")
    if demand.is_empty() or sources.is_empty():
        notes.append("logistics.deliveries: none names a site_id, so there is nothing to source")
        return empty
    senders = set(vehicles["depot_id"].to_list())
    points = pl.concat(
        [
            where.join(sources, on="site_id", how="semi").sort("site_id"),
            where.join(demand, on="site_id", how="semi").sort("site_id"),
        ]
    )
    km, _ = ways.matrix(points)
    names = points["site_id"].to_list()
    landed = mart(home, "lanes").sort("from_id", "to_id")
    rate = _cost_per_km_and_unit(vehicles, demand)
    houses = where.filter(pl.col("site_id").is_in(list(senders))).sort("site_id")
    have = set(landed.select("from_id", "to_id").rows())
    lacking = any((a, b) not in have for a in houses["site_id"] for b in demand["site_id"])
    toured = tour_costs(deliveries, houses, vehicles, ways, as_of, slower) if lacking else {}
    rows: list[dict[str, Any]] = []
    for i, sender in enumerate(names[: sources.height]):
        for j in range(sources.height, len(names)):
            if np.isfinite(km[i, j]) and np.isfinite(km[j, i]):
                by_km = rate.get(names[j], 0.0) * (km[i, j] + km[j, i]) / 2
                rows.append(
                    {"from_id": sender, "to_id": names[j], "cost_per_unit": toured.get((sender, names[j]), by_km),
                     "capacity": None, "km": float(km[i, j])}
                )  # fmt: skip
    made = pl.DataFrame(
        rows,
        schema={
            "from_id": pl.String,
            "to_id": pl.String,
            "cost_per_unit": pl.Float64,
            "capacity": pl.Float64,
            "km": pl.Float64,
        },
    )
    fixed = landed.with_columns(pl.lit(None, pl.Float64).alias("km")).select(made.columns)
    own = fixed.join(made.select("from_id", "to_id", pl.col("km").alias("way")), on=["from_id", "to_id"], how="left")
    own = own.with_columns(pl.coalesce("km", "way").alias("km")).select(made.columns)
    # Lanes are made up from where vehicles are; the nearest is the nearest whoever drives there.
    made = made.filter(pl.col("from_id").is_in(list(senders)))
    lanes = pl.concat([own, made.join(own, on=["from_id", "to_id"], how="anti")]).sort("from_id", "to_id")
    known = {*sources["site_id"].to_list(), *demand["site_id"].to_list()}
    lanes = lanes.filter(pl.col("from_id").is_in(list(known)) & pl.col("to_id").is_in(list(known)))
    stuck = sources.join(lanes, left_on="site_id", right_on="from_id", how="anti")["site_id"].to_list()
    if stuck:
        notes.append(
            f"logistics.lanes: no lane, and no vehicle's way, leads from {', '.join(stuck[:3])}{' …' if stuck[3:] else ''}, "
            "so nothing is sent from there; land lanes if something is"
        )
    limits = shippable(home, as_of)
    if limits:
        # What the production plan does not make cannot be shipped, however much the terms would allow.
        limit = pl.Series([limits.get(name, np.inf) / _AHEAD for name in sources["site_id"].to_list()])
        stock = pl.min_horizontal(pl.col("stock").cast(pl.Float64).fill_null(np.inf), limit)
        sources = sources.with_columns(pl.when(stock.is_finite()).then(stock).alias("stock"))
    return (
        sources.select(
            pl.col("site_id").alias("source_id"), "kind", "capacity", "handling_cost", "overflow_cost", "stock"
        ),
        lanes,
        demand,
    )


def shippable(home: Home, as_of: date) -> dict[str, float]:
    """Load that each plant can ship in the seven days from `as_of`: what lies there and what its production plan makes by then.

    The plan is the latest that was decided as of `as_of` or a day of the week before; without one, nothing is said about plants.

    Returns:
        By plant, weight of finished products (kg; a product without a weight counts 1).
    """
    table = DECISIONS["manufacturing.production_plan"]
    plan = next(
        (f for k in range(_AHEAD) if (f := read_decisions(home, table, as_of - timedelta(days=k))).height),
        table.empty(),
    )
    places = [home.mart("manufacturing", name) for name in ("machines", "routings", "plant_stock")]
    if plan.is_empty() or not all(place.exists() for place in places[:2]):
        return {}
    site = pl.read_parquet(places[0]).select("machine_id", "site_id")
    routes = pl.read_parquet(places[1]).select("product_id", "operation", "machine_id").join(site, on="machine_id")
    plant_of = (
        routes.sort("product_id", "operation", "machine_id")
        .unique("product_id", keep="first")
        .select("product_id", "site_id")
    )
    weights = home.mart("common", "products")
    weight = pl.DataFrame(schema={"product_id": pl.String, "weight_kg": pl.Float64})
    if weights.exists() and "weight_kg" in (known := pl.read_parquet(weights)).columns:
        weight = known.select("product_id", pl.col("weight_kg").cast(pl.Float64)).unique("product_id", keep="first")
    until = as_of + timedelta(days=_AHEAD)
    ahead = plan.filter((pl.col("period_start") >= as_of) & (pl.col("period_start") < until))
    parts = [ahead.join(site, on="machine_id").select("site_id", "product_id", pl.col("quantity").cast(pl.Float64))]
    if places[2].exists():
        counted = (
            pl.read_parquet(places[2])
            .filter(pl.col("counted_on") <= as_of)
            .sort("product_id", "counted_on")
            .unique("product_id", keep="last", maintain_order=True)
        )
        parts.append(
            counted.join(plant_of, on="product_id").select(
                "site_id", "product_id", pl.col("on_hand").cast(pl.Float64).clip(lower_bound=0).alias("quantity")
            )
        )
    total = (
        pl.concat(parts)
        .join(weight, on="product_id", how="left")
        .group_by("site_id")
        .agg((pl.col("quantity") * pl.col("weight_kg").fill_null(1.0)).sum().round(6).alias("kg"))
        .sort("site_id")
    )
    return dict(total.iter_rows())


def _cost_per_km_and_unit(vehicles: pl.DataFrame, demand: pl.DataFrame) -> dict[str, float]:
    """What a unit costs per km, where tours say nothing: an average vehicle's km, shared by the three stops a tour usually has."""
    if vehicles.is_empty():
        return {}
    per_km = float((vehicles["cost_per_km"] + vehicles["cost_per_minute"] / 0.8).mean())  # type: ignore[arg-type]
    return {
        site: per_km / 1.5 / max(mean, 1e-9)
        for site, mean in demand.select("site_id", "mean").iter_rows()
    }  # fmt: skip


def _site_demand(home: Home, deliveries: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """Load of each site over the next seven days: known orders where there are any, the usual day for the rest."""
    opened = opening(as_of)
    past = deliveries.drop_nulls("site_id").filter(
        (pl.col("ready_at") < opened) & (pl.col("ready_at") >= opened - timedelta(days=_USUAL_DAYS))
    )
    # Days before the first delivery are not days on which nobody wanted anything; of less than a week no day is the usual one.
    first: Any = past["ready_at"].min()
    days = _USUAL_DAYS if first is None else max(_AHEAD, (as_of - first.date()).days)
    usual = past.group_by("site_id").agg((pl.col("quantity").sum() / days).alias("mean"))
    coming = _ordered(home, as_of)
    both = usual.join(coming, on="site_id", how="full", coalesce=True).with_columns(
        pl.col("mean").fill_null(0.0), pl.col("known").fill_null(0.0), pl.col("days").fill_null(0)
    )
    return (
        both.with_columns(
            (pl.col("known") + pl.col("mean") * (_AHEAD - pl.col("days")).clip(lower_bound=0)).alias("quantity")
        )
        .with_columns(pl.when(pl.col("mean") > 0).then("mean").otherwise(pl.col("quantity") / _AHEAD).alias("mean"))
        .filter(pl.col("quantity") > 0)
        .select("site_id", pl.col("quantity").round(6), pl.col("known").round(6), pl.col("mean").round(6))
        .sort("site_id")
    )


def _ordered(home: Home, as_of: date) -> pl.DataFrame:
    """Load that arrives in the next seven days by replenishment orders: those under way, and those decided for this day."""
    found: list[pl.DataFrame] = []
    columns = ["site_id", "product_id", "arrives_on", "quantity"]
    place = home.mart("retail", "open_orders")
    if place.exists():
        orders = pl.read_parquet(place)
        placed = (
            pl.col("ordered_on").is_null() | (pl.col("ordered_on") < as_of)
            if "ordered_on" in orders.columns
            else pl.lit(True)
        )
        found.append(orders.filter(placed).select(columns))
    found.append(read_decisions(home, DECISIONS["retail.replenishment_orders"], as_of).select(columns))
    products = home.mart("common", "products")
    if not products.exists():
        return pl.DataFrame(schema={"site_id": pl.String, "known": pl.Float64, "days": pl.Int64})
    weight = pl.read_parquet(products)
    weight = weight.select(
        "product_id", pl.col("weight_kg") if "weight_kg" in weight.columns else pl.lit(1.0).alias("weight_kg")
    )
    return (
        pl.concat([f.with_columns(pl.col("quantity").cast(pl.Float64)) for f in found])
        .filter((pl.col("arrives_on") > as_of) & (pl.col("arrives_on") <= as_of + timedelta(days=_AHEAD)))
        .join(weight.unique("product_id", keep="first"), on="product_id", how="left")
        .group_by("site_id")
        .agg(
            (pl.col("quantity") * pl.col("weight_kg").fill_null(1.0)).sum().alias("known"),
            pl.col("arrives_on").n_unique().cast(pl.Int64).alias("days"),
        )
        .sort("site_id")
    )
