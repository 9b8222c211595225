"""Which vehicle makes which delivery, in which order and when: the vehicle routing problem of a day.

    minimize    sum_k F_k y_k + sum_k sum_ij (c_k d_ij x_ijk) + sum_k h_k T_k + sum_i l_i L_i + sum_i p_i u_i
    subject to  every stop i is on one route or dropped (u_i), loads keep to capacities, arrivals to windows or are late (L_i),
                routes to shifts, distances and the depot that the goods start from,

with y_k a vehicle used, d and T distance and time on the road, F, c, h its costs (Toth & Vigo, Vehicle Routing: Problems,
Methods, and Applications, 2nd ed., ch. 1 and 5; lateness and drops are priced). PyVRP searches; the bound, from which no plan
can escape, is that of column generation over relaxed routes, or of a linear program over arcs (see `route_bound`).

How roads become distances does not belong here (see `paths`), nor what a plan means and costs (see `route_timing` and
`route_evaluation`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from npq_assets.optimization.result import Result
from npq_assets.optimization.route_evaluation import total_cost, total_cost_of
from npq_assets.optimization.route_explaining import explanations
from npq_assets.optimization.route_feasibility import left_out, violations, why_hopeless
from npq_assets.optimization.route_model import routes_found, search_stops
from npq_assets.optimization.route_problem import Params, RouteCost, Routes, RoutingProblem, dearest, parts_of
from npq_assets.optimization.route_relaxation import lower_bound
from npq_assets.optimization.route_timing import schedule, timetable

__all__ = ["Params", "RouteCost", "Routes", "RoutingProblem", "solve"]

_FAR = 1e9
_TOLERANCE = 1e-6
_PRICED_UP_TO = 150


def solve(
    problem: RoutingProblem,
    params: Params | None = None,
    start: Routes | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> Result:
    """The cheapest routes found, with a proven bound.

    Args:
        problem: What is to be delivered, and with what.
        params: How long to search.
        start: Routes to start from.
        progress: Called with seconds and cost (money) at each better plan.

    Returns:
        A plan with a row a delivery: delivery_id, vehicle_id, stop (1, 2, …), arrives, begins, leaves (minutes), load (on
        arrival), km (from the stop before), late_minutes; vehicle_id is null where a delivery is dropped. `relaxation`
        names what could not be kept, with the price of forcing it in. Nothing that must be delivered is dropped in silence.
    """
    params = params or Params()
    began = time.monotonic()
    routes: Routes = {}
    for part in parts_of(problem):
        routes |= _search(problem, part, params, start, progress)
    plan = schedule(problem, routes)
    objective = total_cost(problem, routes)
    bound = min(lower_bound(problem, left=left_out(problem, routes), start=routes), objective) if params.bound else 0.0
    messages = explanations(problem, routes, params)
    lost = plan.filter(pl.col("vehicle_id").is_null()).join(
        problem.stops.filter(pl.col("drop_cost").is_null()), on="delivery_id", how="semi"
    )
    status = (
        "relaxed" if lost.height else "optimal" if objective - bound <= _TOLERANCE * max(1.0, objective) else "feasible"
    )
    return Result(
        plan,
        status,
        objective,
        bound,
        relaxation=messages,
        solver="PyVRP; bound: column generation over ng-routes, HiGHS",
        seconds=time.monotonic() - began,
    )


def _search(
    problem: RoutingProblem,
    part: tuple[list[int], list[int]],
    params: Params,
    start: Routes | None,
    progress: Callable[[float, float], None] | None,
) -> Routes:
    stops, vehicles = part
    can = [s for s in stops if why_hopeless(problem, s, vehicles) is None]
    if not can or not vehicles:
        return {}
    best: tuple[float, Routes] = (np.inf, {})
    priced = bool((problem.stops["late_cost"].fill_null(0.0).gather(can) > 0).any())
    first = _starting(problem, can, vehicles, start)
    for soft in (False, True):
        whole = len({s for visits in best[1].values() for s in visits}) == len(can)
        if soft and (not priced or (whole and ("priced" not in params.windows or len(can) > _PRICED_UP_TO))):
            break
        if not soft and priced and "kept" not in params.windows:
            continue
        model, found = search_stops(problem, can, vehicles, params, first, progress, soft=soft)
        if found.cost is None:
            continue
        routes = _reassigned(problem, routes_found(model, found.plan), vehicles)
        served = {s for visits in routes.values() for s in visits}
        lost = sum(problem.stops["drop_cost"][s] is None for s in can if s not in served)
        worth = total_cost(problem, routes) + lost * 4.0 * (dearest(problem) + 1e3)
        if worth < best[0] - 1e-9:
            best = (worth, routes)
        first = best[1]
    return best[1]


def _reassigned(problem: RoutingProblem, routes: Routes, vehicles: Sequence[int]) -> Routes:
    """The same routes on the vehicles that drive them cheapest: an assignment problem, which local search moves rarely see.

    No route breaks a rule or becomes later by it.
    """
    from scipy.optimize import linear_sum_assignment

    names = ("depot", "capacity", "fixed_cost", "cost_per_km", "cost_per_minute", "shift_start", "shift_end", "max_km")
    kind = {v: tuple(problem.vehicles[name][v] for name in names) for v in vehicles}
    if len(set(kind.values())) < 2 or not routes:
        return routes
    order, cars = sorted(routes), sorted(vehicles)
    price = np.full((len(order), len(cars)), _FAR)
    for i, own in enumerate(order):
        visits, known = routes[own], {kind[own]: total_cost_of(problem, own, routes[own])}
        for j, v in enumerate(cars):
            if kind[v] not in known:
                fits = not violations(problem, {v: visits}) and (
                    _lateness(problem, v, visits) <= _lateness(problem, own, visits) + 1e-6
                )
                known[kind[v]] = total_cost_of(problem, v, visits) if fits else _FAR
            price[i, j] = known[kind[v]]
    row, column = linear_sum_assignment(price)
    now = sum(price[i, cars.index(own)] for i, own in enumerate(order))
    if price[row, column].sum() > now - 1e-6:
        return routes
    return {cars[j]: routes[order[i]] for i, j in zip(row.tolist(), column.tolist(), strict=True)}


def _lateness(problem: RoutingProblem, vehicle: int, visits: Sequence[int]) -> float:
    """Minutes after the windows' ends, all stops together."""
    _, arrivals, _, _ = timetable(problem, vehicle, visits)
    return sum(max(0.0, a - float(problem.stops["due"][s])) for a, s in zip(arrivals, visits, strict=True))


def _starting(problem: RoutingProblem, can: list[int], vehicles: list[int], start: Routes | None) -> Routes:
    if start is None:
        return {}
    allowed = set(can)
    return {v: kept for v in vehicles if (kept := [s for s in start.get(v, []) if s in allowed])}
