"""Routes built by the rules of a careful planner: savings, then cheapest insertion of what is left.

The rules on bare arrays do not belong here (see `route_rules`), nor the search that improves routes (see `route_search`).
"""

from __future__ import annotations

import itertools

import numpy as np

from npq_assets.optimization.route_evaluation import total_cost, total_cost_of
from npq_assets.optimization.route_feasibility import left_out, violations, why_hopeless
from npq_assets.optimization.route_problem import Routes, RoutingProblem, dearest, parts_of
from npq_assets.optimization.route_rules import savings

_FAR = 1e9
_MOST_SHIFTS = 6


def savings_routes(problem: RoutingProblem) -> Routes:
    """What a careful planner drives: Clarke and Wright's savings by depot for the vehicles there, windows kept.

    Routes take the cheapest vehicle that holds them; stops left over are put where they cost least; who costs more than his drop
    is not driven to.
    """
    routes: Routes = {}
    for stops, vehicles in parts_of(problem):
        can = [s for s in stops if why_hopeless(problem, s, vehicles) is None]
        if can and vehicles:
            routes |= _savings_part(problem, can, vehicles)
    return routes


def _savings_part(problem: RoutingProblem, stops: list[int], vehicles: list[int]) -> Routes:
    rows, cars = problem.stops, problem.vehicles
    depot = int(cars["depot"][vehicles[0]])
    places = np.array([depot, *(int(rows["place"][s]) for s in stops)])
    km, minutes = problem.km[np.ix_(places, places)], problem.minutes[np.ix_(places, places)]
    km = np.where(np.isfinite(km), km, _FAR)
    minutes = np.where(np.isfinite(minutes), minutes, _FAR)
    limits = cars["max_km"].gather(vehicles).drop_nulls()
    starts, ends = (cars[name].gather(vehicles) for name in ("shift_start", "shift_end"))
    # Tours for the hours in which all drive, and for each shift: of an early and a late one, no tour suits both.
    shifts = {(float(starts.max()), float(ends.min())), *zip(starts.to_list(), ends.to_list(), strict=True)}  # type: ignore[arg-type]

    def build(capacity: float, start: float, end: float) -> list[list[int]]:
        return savings(
            km,
            minutes,
            demand=np.array([0.0, *(float(rows["quantity"][s]) for s in stops)]),
            capacity=capacity,
            ready=np.array([start, *(float(rows["ready"][s]) for s in stops)]),
            due=np.array([end, *(float(rows["due"][s]) for s in stops)]),
            service=np.array([0.0, *(float(rows["service"][s]) for s in stops)]),
            max_distance=float(limits.min()) if len(limits) else np.inf,  # type: ignore[arg-type]
            reverse=False,
        )

    best: tuple[float, Routes] | None = None
    capacities = sorted({float(c) for c in cars["capacity"].gather(vehicles)})
    for capacity, (start, end) in itertools.product(capacities, sorted(shifts)[:_MOST_SHIFTS]):
        built = [[stops[k - 1] for k in route] for route in build(capacity, start, end)]
        routes = _assign(problem, built, vehicles)
        routes = insert_left(
            problem, routes, [s for s in stops if s not in {x for r in routes.values() for x in r}], vehicles
        )
        routes = _worth_driving(problem, routes)
        # Who need not be served is paid for by his drop cost; who must be is not.
        lost = len(left_out(problem, routes) & set(stops))
        worth = total_cost(problem, routes) + lost * dearest(problem)
        if best is None or worth < best[0] - 1e-9:
            best = (worth, routes)
    return best[1] if best else {}


def _assign(problem: RoutingProblem, built: list[list[int]], vehicles: list[int]) -> Routes:
    free = list(vehicles)
    routes: Routes = {}
    loads = [float(problem.stops["quantity"].gather(route).sum()) for route in built]
    for k in sorted(range(len(built)), key=lambda k: (-loads[k], k)):
        fitting = [v for v in free if not violations(problem, {v: built[k]})]
        if fitting:
            pick = min(fitting, key=lambda v: (total_cost_of(problem, v, built[k]), v))
            routes[pick] = built[k]
            free.remove(pick)
    return routes


def _worth_driving(problem: RoutingProblem, routes: Routes) -> Routes:
    """Leaves out a stop, or a whole route, that costs more to drive to than its drop cost."""
    drops = problem.stops["drop_cost"].to_list()
    price = [np.inf if drop is None else float(drop) for drop in drops]
    kept: Routes = {}
    for v, visits in routes.items():
        route, cost = list(visits), total_cost_of(problem, v, visits)
        for s in visits:
            rest = [x for x in route if x != s]
            without = total_cost_of(problem, v, rest)
            if cost - without > price[s] + 1e-9 and not violations(problem, {v: rest}):
                route, cost = rest, without
        if route and cost <= sum(price[s] for s in route) + 1e-9:
            kept[v] = route
    return kept


def insert_left(problem: RoutingProblem, routes: Routes, left: list[int], vehicles: list[int]) -> Routes:
    """Puts stops one by one where they add least cost, lateness priced, if that is less than dropping them."""
    routes = {v: list(r) for v, r in routes.items()}
    for s in left:
        drop = problem.stops["drop_cost"][s]
        limit = np.inf if drop is None else float(drop)
        best: tuple[float, int, int] | None = None
        for v in vehicles:
            now = routes.get(v, [])
            before = total_cost_of(problem, v, now)
            for k in range(len(now) + 1):
                tried = [*now[:k], s, *now[k:]]
                if violations(problem, {v: tried}):
                    continue
                extra = total_cost_of(problem, v, tried) - before
                if extra < limit and (best is None or extra < best[0] - 1e-9):
                    best = (extra, v, k)
        if best is not None:
            _, v, k = best
            routes.setdefault(v, []).insert(k, s)
    return routes
