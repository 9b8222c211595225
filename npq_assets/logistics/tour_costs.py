"""What it costs to bring goods to a site from each depot: what tours cost more with its stops than without them.

A price per km leaves out what tours are made of: a vehicle that leaves for one site alone costs its day, a stop on somebody's
way next to nothing. So the days that have landed are toured by the planner's rule, each stop of a site is taken out of its tour
and put where it costs least on the tours of every other depot, or on a vehicle of its own (cheapest insertion, Rosenkrantz,
Stearns and Lewis, SIAM J. on Computing 6, 1977).

How the flow is decided does not belong here (see `network_flow`), nor what is known of a site's demand (see `sourcing_inputs`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl

from npq_assets.logistics.marts import opening, stop_columns
from npq_assets.logistics.ways import Ways
from npq_assets.optimization.route_construction import savings_routes
from npq_assets.optimization.route_evaluation import total_cost_of
from npq_assets.optimization.route_feasibility import violations
from npq_assets.optimization.route_problem import Routes, RoutingProblem, dearest, stretched

_DAYS = 7
_MOST_STOPS = 400  # of all days together, which bounds the time that this takes
_BESIDE = 3  # tours of a depot beside which a stop is tried, those that pass nearest to it


def tour_costs(
    deliveries: pl.DataFrame, depots: pl.DataFrame, fleet: pl.DataFrame, ways: Ways, as_of: date, slower: float
) -> dict[tuple[str, str], float]:
    """Cost of a unit on tours by depot and site, over the last days that had deliveries to sites.

    Args:
        deliveries: The mart: delivery_id, depot_id, site_id, node_id, latitude, longitude, quantity, ready_at, due_at,
            service_minutes, late_cost_per_minute, drop_cost.
        depots: site_id, node_id, latitude, longitude of where vehicles are.
        fleet: Vehicles as planned with on the day: depot_id, capacity, costs, shifts in minutes.
        ways: How to get from place to place.
        as_of: The day; only deliveries of days before count.
        slower: How much longer legs take on average than the ways say.

    Returns:
        Money a unit (depot, site) -> cost; pairs on which the days say nothing are missing.
    """
    names = [name for name in depots["site_id"].to_list() if name in set(fleet["depot_id"].to_list())]
    if not names:
        return {}
    opened = opening(as_of)
    past = deliveries.filter((pl.col("ready_at") < opened) & (pl.col("quantity") > 0)).with_columns(
        pl.col("ready_at").dt.date().alias("day")
    )
    days = past.drop_nulls("site_id")["day"].unique().sort(descending=True).to_list()
    money: dict[tuple[str, str], float] = {}
    units: dict[tuple[str, str], float] = {}
    seen = 0
    for day in days[:_DAYS]:
        rows = ways.located(past.filter(pl.col("day") == day)).drop_nulls(["latitude", "longitude"])
        rows = rows.filter(pl.col("depot_id").is_in(names)).sort("delivery_id")
        seen += rows.height
        if rows.is_empty() or (seen > _MOST_STOPS and money):
            continue
        problem = stretched(_problem(rows, depots, fleet, ways, day), slower)
        for (depot, site), (cost, quantity) in _of_day(problem, rows, depots["site_id"].to_list(), names).items():
            money[depot, site] = money.get((depot, site), 0.0) + cost
            units[depot, site] = units.get((depot, site), 0.0) + quantity
    # Rounded: the order of a sum must not show in the plan.
    return {pair: round(money[pair] / units[pair], 9) for pair in sorted(money)}


def _problem(rows: pl.DataFrame, depots: pl.DataFrame, fleet: pl.DataFrame, ways: Ways, day: date) -> RoutingProblem:
    """The deliveries of a day that is over, for the vehicles there are now, on ways as they usually are."""
    columns = ("node_id", "latitude", "longitude")
    km, minutes = ways.matrix(pl.concat([depots.select(columns), rows.select(columns)]), usual=True)
    index = {name: k for k, name in enumerate(depots["site_id"].to_list())}
    return RoutingProblem(
        rows.select("delivery_id", *stop_columns(opening(day), index, depots.height)),
        fleet.filter(pl.col("depot_id").is_in(list(index))).with_columns(
            pl.col("depot_id").replace_strict(index, return_dtype=pl.Int64).alias("depot")
        ),
        km,
        minutes,
    )


def _of_day(
    problem: RoutingProblem, rows: pl.DataFrame, places: Sequence[str], depots: Sequence[str]
) -> dict[tuple[str, str], tuple[float, float]]:
    """Cost and quantity by depot and site of one day."""
    routes = savings_routes(problem)
    on = {s: v for v, visits in routes.items() for s in visits}
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for s, (site, own, quantity) in enumerate(rows.select("site_id", "depot_id", "quantity").iter_rows()):
        if site is None:
            continue
        drop = problem.stops["drop_cost"][s]
        most = dearest(problem) if drop is None else float(drop)
        rest = {v: [x for x in visits if x != s] for v, visits in routes.items()}
        for depot in depots:
            if depot == own and s in on:
                v = on[s]
                cost = total_cost_of(problem, v, routes[v]) - total_cost_of(problem, v, rest[v])
            else:
                cost = _inserted(problem, rest, s, places.index(depot))
            before = found.get((depot, site), (0.0, 0.0))
            found[depot, site] = (before[0] + max(0.0, min(cost, most)), before[1] + float(quantity))
    return found


def _inserted(problem: RoutingProblem, routes: Routes, stop: int, depot: int) -> float:
    """What a stop costs where it costs least on the tours from a depot, or on a vehicle of its own; infinite if nobody can."""
    at = pl.Series("depot", [depot if k == stop else d for k, d in enumerate(problem.stops["depot"].to_list())])
    problem = replace(problem, stops=problem.stops.with_columns(at))
    here = np.flatnonzero(problem.vehicles["depot"].to_numpy() == depot).tolist()
    place = problem.stops["place"].to_numpy()
    tours = [v for v in here if routes.get(v)]
    tours.sort(key=lambda v: (min(float(problem.km[place[x], place[stop]]) for x in routes[v]), v))
    kinds: dict[tuple[object, ...], int] = {}
    for v in here:
        if not routes.get(v):
            kinds.setdefault(problem.vehicles.drop("vehicle_id").row(v), v)
    best = np.inf
    for v in [*tours[:_BESIDE], *kinds.values()]:
        visits = routes.get(v, [])
        before = total_cost_of(problem, v, visits)
        for k in range(len(visits) + 1):
            tour = [*visits[:k], stop, *visits[k:]]
            added = total_cost_of(problem, v, tour) - before
            if added < best and not violations(problem, {v: tour}):
                best = added
    return float(best)
