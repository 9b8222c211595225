"""Routes built by the rules of a careful planner: savings, then cheapest insertion of what is left.

The rules on bare arrays do not belong here (see `route_rules`), nor the search that improves routes (see `route_search`).
"""

from __future__ import annotations

import numpy as np

from npq_assets.optimization.route_evaluation import total_cost, total_cost_of
from npq_assets.optimization.route_feasibility import violations, why_hopeless
from npq_assets.optimization.route_problem import Routes, RoutingProblem, dearest, parts_of
from npq_assets.optimization.route_rules import savings

_FAR = 1e9


def savings_routes(problem: RoutingProblem) -> Routes:
    """What a careful planner drives: Clarke and Wright's savings by depot for the vehicles there, windows kept.

    Routes take the cheapest vehicle that holds them; stops left over are put where they cost least.
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
    start = float(cars["shift_start"].gather(vehicles).max())  # type: ignore[arg-type]
    end = float(cars["shift_end"].gather(vehicles).min())  # type: ignore[arg-type]

    def build(capacity: float) -> list[list[int]]:
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
    for capacity in sorted({float(c) for c in cars["capacity"].gather(vehicles)}):
        built = [[stops[k - 1] for k in route] for route in build(capacity)]
        routes = _assign(problem, built, vehicles)
        routes = insert_left(
            problem, routes, [s for s in stops if s not in {x for r in routes.values() for x in r}], vehicles
        )
        left = len(stops) - sum(map(len, routes.values()))
        worth = total_cost(problem, routes) + left * dearest(problem)
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
